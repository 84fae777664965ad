// How a run ends on screen, told through the page's own socket: node finished.mjs URL ARTIFACTS NAME VIDEO PICTURE
// VIDEO lies in the server's temp folder, PICTURE is a JPEG file. The checks are in test_finished.py.
import { readFileSync } from "node:fs";
import { loadQuickstart, open, setVue, tell, visit } from "./visit.mjs";

const [url, artifacts, name, video, picture] = process.argv.slice(2);
const jpeg = readFileSync(picture).toString("base64");
const CLIPS = 2;

await visit(url, artifacts, async ({ page, seen, shoot }) => {
  for (const renderer of ["canvas", "vue"]) {
    await setVue(page, renderer === "vue");
    await open(page, url);
    for (const previews of ["previews", "none"]) {
      const key = `${renderer}_${previews}`;
      const node = await loadQuickstart(page, {});
      await run(page, node, key, previews === "previews");
      const running = await look(page, node);
      await shoot(`${name}_${key}_running`);
      await end(page, node, key);
      await page.waitForTimeout(4000); // the frontend tries a video that does not load twice
      await shoot(`${name}_${key}_done`);
      seen[key] = { running, done: await look(page, node) };
    }
  }
  await setVue(page, false);
});

/** The first clip of a run, at work. */
async function run(page, node, prompt, previews) {
  const state = { value: 1, max: 8, state: "running", node_id: node, prompt_id: prompt, display_node_id: node };
  await tell(page, "execution_start", { prompt_id: prompt });
  await tell(page, "progress_state", { prompt_id: prompt, nodes: { [node]: { ...state, real_node_id: node } } });
  await tell(page, "executing", { node, display_node: node, prompt_id: prompt });
  await clip(page, node, prompt, -1);
  for (let step = 0; previews && step < 3; step++) {
    await page.evaluate(
      ([id, prompt_id, base64]) => {
        const bytes = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));
        const about = { node_id: id, display_node_id: id, parent_node_id: null, real_node_id: id, prompt_id };
        const metadata = bytes(JSON.stringify({ ...about, image_type: "image/jpeg" }));
        const image = bytes(atob(base64));
        const message = new Uint8Array(8 + metadata.length + image.length);
        new DataView(message.buffer).setUint32(0, 4); // a preview with metadata
        new DataView(message.buffer).setUint32(4, metadata.length);
        message.set(metadata, 8);
        message.set(image, 8 + metadata.length);
        window.app.api.socket.dispatchEvent(new MessageEvent("message", { data: message.buffer }));
      },
      [node, prompt, jpeg],
    );
    await page.waitForTimeout(500);
  }
}

async function clip(page, node, prompt, index) {
  const frames = { frames_done: 16 * (index + 1), frames: 16 * CLIPS, fps: 25 };
  await tell(page, "letstalk.clip", { node, prompt, clip: index, clips: CLIPS, ...frames, seconds_left: 1, media: null });
}

async function end(page, node, prompt) {
  for (let index = 0; index < CLIPS; index++) await clip(page, node, prompt, index);
  const images = [{ filename: video, subfolder: "", type: "temp" }];
  const summary = { clips: CLIPS, frames: 16 * CLIPS, seconds: 1.28, model: "made up" };
  const output = { images, animated: [true], letstalk: [summary] };
  await tell(page, "executed", { node, display_node: node, output, prompt_id: prompt });
  await tell(page, "execution_success", { prompt_id: prompt, timestamp: 0 });
  await tell(page, "executing", { node: null, prompt_id: prompt });
}

function look(page, node) {
  return page.evaluate((id) => {
    const outside = (tag) => [...document.querySelectorAll(tag)].filter((found) => !found.closest(".letstalk-panel"));
    const shown = (element) => element.getBoundingClientRect().height > 20;
    const latent = document.querySelector(".letstalk-latent");
    return {
      latent: Boolean(latent?.naturalWidth && shown(latent)),
      blobs: outside("img").filter(({ src }) => src.startsWith("blob:")).length,
      imgs: window.app.graph.getNodeById(id)?.imgs?.length ?? 0,
      videos: outside("video").map((found) => ({
        ready: found.readyState, shown: shown(found), file: new URL(found.src).searchParams.get("filename"),
      })),
      failed: /failed to load|error loading/i.test(document.body.innerText),
      line: document.querySelector(".letstalk-panel .letstalk-line")?.textContent ?? null,
    };
  }, node);
}
