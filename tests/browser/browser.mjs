// A visit to ComfyUI with a real browser: node browser.mjs URL ARTIFACTS IMAGE SOUND
// Prints one JSON object of what was seen; the checks are in test_browser.py.
import { dropped, dropOnNode, RUN, SLOW, visit, watchPanel } from "./visit.mjs";

const [url, artifacts, image, sound] = process.argv.slice(2);

await visit(url, artifacts, async (there) => {
  await loadEveryTemplate(there);
  await openQuickstart(there);
  await runIt(there);
  await dropFiles(there);
});

/** Load every workflow of the pack: which node types are unknown? */
async function loadEveryTemplate({ page, seen }) {
  seen.templates = await page.evaluate(async () => {
    const listed = (await (await window.app.api.fetchApi("/workflow_templates")).json()).LetsTalk ?? [];
    const result = {};
    for (const name of listed) {
      const graph = await (await fetch(window.app.api.apiURL(`/workflow_templates/LetsTalk/${name}.json`))).json();
      await window.app.loadGraphData(graph);
      const types = window.app.graph._nodes.map((node) => node.type);
      const drawn = new Set(["Note", "MarkdownNote", "Reroute"]);
      const missing = types.filter((type) => !drawn.has(type) && !window.LiteGraph.registered_node_types[type]);
      result[name] = { nodes: types.length, missing };
    }
    return result;
  });
}

/** As a user does: Templates, our pack, the first card. */
async function openQuickstart({ page, shoot }) {
  await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.BrowseTemplates"));
  const dialog = page.getByRole("dialog");
  await dialog.getByText("LetsTalk", { exact: true }).first().click({ timeout: SLOW });
  const card = dialog.getByText(/1[_ ]quickstart/i).first();
  await card.waitFor({ timeout: SLOW });
  await page.waitForTimeout(1500); // thumbnails
  await shoot("1_templates");
  await card.click();
  await page.waitForFunction(() => window.app.graph._nodes.some((node) => node.type === "LetsTalkPortraitVideo"));
  await dialog.waitFor({ state: "hidden", timeout: SLOW });
  await page.waitForTimeout(1000);
}

/** Queue the quickstart, shortened, and watch the panel of Talking Portrait. */
async function runIt({ page, seen, shoot }) {
  seen.saved_values = await page.evaluate(() => {
    const node = window.app.graph._nodes.find((n) => n.type === "LetsTalkPortraitVideo");
    const set = (name, value) => (node.widgets.find((widget) => widget.name === name).value = value);
    set("steps", 4); // on a fast machine the run must still last until a stretch plays
    set("max_seconds", 6.4);
    const values = node.serialize().widgets_values;
    const own = node.widgets.filter((widget) => !widget.name.startsWith("letstalk_"));
    return { saved: values.length, widgets: own.length };
  });
  await watchPanel(page);
  await page.evaluate(() => window.app.queuePrompt(0));
  const plays = () => window.seenPanels.some((panel) => panel.phase === "running" && panel.time > 0.4);
  const over = () => ["done", "failed", "stopped"].includes(window.seenPanels.at(-1)?.phase);
  await page.waitForFunction(`(${plays})() || (${over})()`, null, { timeout: RUN });
  await shoot("2_running");
  await page.waitForFunction(over, null, { timeout: RUN });
  const shown = () => {
    const videos = [...document.querySelectorAll("video")].filter((video) => !video.closest(".letstalk-panel"));
    return videos.filter((video) => video.readyState > 1).length > 1;
  };
  await page.waitForFunction(shown, null, { timeout: 20_000 }).catch(() => {});
  await page.waitForTimeout(4000); // playback of the last stretch ends
  await shoot("3_done");
  seen.below = await page.evaluate(() => {
    const { pos, size } = window.app.graph._nodes.find((n) => n.type === "LetsTalkPortraitVideo");
    const [, top, , height] = window.app.graph._groups.find(({ title }) => title === "Video")._bounding;
    return pos[1] + size[1] - top - height;
  });
  seen.panels = await page.evaluate(() => window.seenPanels);
  seen.finished = await page.evaluate(() =>
    [...document.querySelectorAll("video")]
      .filter((video) => !video.closest(".letstalk-panel"))
      .map(({ readyState, duration, src }) => {
        return { ready: readyState, duration, type: new URL(src).searchParams.get("type") };
      }),
  );
}

/** Drop a picture on the canvas where Load Portrait is, and a sound on the panel of Load Speech. */
async function dropFiles({ page, seen, shoot }) {
  seen.dropped_image = await dropOnNode(page, "LetsTalkLoadPortrait", "image", dropped(image, "image/png"), true);
  seen.dropped_sound = await dropOnNode(page, "LetsTalkLoadSpeech", "audio", dropped(sound, "audio/wav"));
  const shown = () => {
    const [img, audio] = ["img", "audio"].map((tag) => document.querySelector(`.letstalk-loader ${tag}`));
    return img.naturalWidth && audio.duration;
  };
  await page.waitForFunction(shown, null, { timeout: 20_000 }).catch(() => {});
  seen.previews = await page.evaluate(() => ({
    image: [...document.querySelectorAll(".letstalk-loader img")].map((img) => [img.naturalWidth, img.src]),
    sound: [...document.querySelectorAll(".letstalk-loader audio")].map((audio) => [audio.duration, audio.src]),
  }));
  await shoot("4_dropped");
}
