// A second visit: two tabs of one template, an interrupt, seeking, the light theme, Vue nodes: node tabs.mjs URL ARTIFACTS
// Prints one JSON object of what was seen; the checks are in test_tabs.py.
import { lastPanel, loadQuickstart, open, RUN, SLOW, visit, watchPanel } from "./visit.mjs";

const [url, artifacts] = process.argv.slice(2);
const SHORT = { steps: 1, max_frames: 96 }; // two stretches of the video
const seed = Date.now() % 2 ** 31; // a run like one before would come from the server's cache

await visit(url, artifacts, async (there) => {
  await recordEvents(there);
  await runInAnotherTab(there);
  await seek(there);
  await interrupt(there);
  await lightTheme(there);
  await vueNodes(there);
});

async function recordEvents({ page }) {
  await page.evaluate(() => {
    window.events = [];
    const kinds = ["letstalk.clip", "executed", "execution_success", "execution_interrupted", "execution_error"];
    for (const kind of kinds) window.app.api.addEventListener(kind, ({ detail }) => window.events.push([kind, detail]));
  });
}

async function happened(page, kind) {
  const over = (what) => window.events.findLast(([name]) => [what, "execution_error"].includes(name));
  const [found, detail] = await (await page.waitForFunction(over, kind, { timeout: RUN })).jsonValue();
  if (found !== kind) throw new Error(`the run failed: ${detail.exception_message}`);
}

/** Press Run in one tab and go to another of the same template before anything is known about the run. */
async function runInAnotherTab({ page, seen, shoot }) {
  await loadQuickstart(page, { ...SHORT, seed });
  await page.evaluate(() => window.app.queuePrompt(0));
  await loadQuickstart(page, {});
  await watchPanel(page);
  await happened(page, "execution_success");
  await page.waitForTimeout(500);
  seen.tabs = {
    graphs: await page.evaluate(() => {
      const { openWorkflows } = window.app.extensionManager.workflow;
      return openWorkflows.slice(-2).map((workflow) => [workflow.path, workflow.activeState.id]);
    }),
    other: await page.evaluate(() => window.seenPanels),
  };
  await openTab(page, -2);
  await shoot("5_back_in_the_tab");
  seen.tabs.own = await lastPanel(page);
  await openTab(page, -1);
  seen.tabs.other_again = await lastPanel(page);
}

/** As a user does, by a click on its name. */
async function openTab(page, index) {
  const tabs = page.locator(".workflow-tab");
  await tabs.nth((await tabs.count()) + index).click({ timeout: SLOW });
  await page.waitForTimeout(2000);
}

/** Play a made-up run of four stretches out of real ones, and go to and fro in it. */
async function seek({ page, seen, shoot }) {
  await page.evaluate(() => {
    const media = window.events.map(([, detail]) => detail.media).filter(Boolean);
    const node = String(window.app.graph._nodes.find(({ type }) => type === "LetsTalkTalkingVideo").id);
    window.tell = (clip, file) => {
      const frames = [64, 96, 160, 192]; // as long as the files are
      const detail = {
        node, prompt: "made up", clip, clips: 5, frames_done: frames[clip] ?? 0, frames: 240, fps: 25,
        seconds_left: 9, media: media[file] ?? null,
      };
      window.app.api.dispatchCustomEvent("letstalk.clip", detail);
    };
    window.tell(-1, -1);
    [0, 1, 0, 1].forEach((file, clip) => window.tell(clip, file));
  });
  const strip = page.locator(".letstalk-strip");
  const press = async (key) => {
    await strip.press(key, { timeout: SLOW });
    await page.waitForTimeout(1500);
    return lastPanel(page);
  };
  await page.waitForTimeout(1000);
  await page.locator(".letstalk-controls button").first().click(); // pause
  seen.seek = { home: await press("Home"), end: await press("End"), back: await press("PageDown") };
  const box = await strip.boundingBox();
  await strip.click({ position: { x: box.width * 0.7, y: box.height / 2 } });
  await page.waitForTimeout(1500);
  seen.seek.click = await lastPanel(page);
  await shoot("6_seek");
  await page.locator(".letstalk-controls button").first().click(); // play
  const waits = () => document.querySelector(".letstalk-message").textContent !== "";
  await page.waitForFunction(waits, null, { timeout: 20_000 });
  seen.seek.played_to = await lastPanel(page);
  await page.evaluate(() => {
    window.app.api.dispatchCustomEvent("execution_success", { prompt_id: "made up" });
  });
  await page.waitForTimeout(500);
  seen.seek.over = await lastPanel(page);
}

async function interrupt({ page, seen, shoot }) {
  await loadQuickstart(page, { steps: 4, seed: seed + 1 });
  await watchPanel(page);
  await page.evaluate(() => window.app.queuePrompt(0));
  const shows = () => window.seenPanels.some(({ phase, time }) => phase === "running" && time > 0);
  await page.waitForFunction(shows, null, { timeout: RUN });
  await page.evaluate(() => window.app.api.interrupt());
  await happened(page, "execution_interrupted");
  await page.waitForTimeout(6000); // whatever is still playing ends
  await watchPanel(page);
  await page.waitForTimeout(3000);
  seen.interrupted = {
    states: await page.evaluate(() => window.seenPanels),
    message: await page.locator(".letstalk-message").textContent(),
    buttons: await page.locator(".letstalk-controls button:visible").count(),
    animated: await page.evaluate(() => document.querySelector(".letstalk-current").style.width),
  };
  await shoot("7_interrupted");
}

async function lightTheme({ page, shoot }) {
  await page.evaluate(() => window.app.extensionManager.setting.set("Comfy.ColorPalette", "light"));
  await page.waitForTimeout(1500);
  await shoot("8_light");
  await page.evaluate(() => window.app.extensionManager.setting.set("Comfy.ColorPalette", "dark"));
}

/** Nodes drawn by Vue instead of on the canvas; frontend 1.27 has them as an experiment, without our panels. */
async function vueNodes(there) {
  const { page, seen, shoot } = there;
  const set = (value) =>
    page.evaluate((on) => window.app.extensionManager.setting.set("Comfy.VueNodes.Enabled", on), value);
  await set(true);
  await open(page, url);
  await recordEvents(there);
  await loadQuickstart(page, { steps: 1, max_frames: 16, seed: seed + 2 });
  await page.evaluate(() => window.app.queuePrompt(0));
  await happened(page, "execution_success");
  await page.waitForTimeout(3000);
  await shoot("9_vue_nodes");
  seen.vue = {
    nodes: await page.evaluate(() => window.app.graph._nodes.length),
    drawn: await page.locator("[data-node-id]").count(),
    panel: await page.locator(".letstalk-panel:visible .letstalk-line").allTextContents(),
    kinds: await page.evaluate(() => window.events.map(([kind]) => kind)),
  };
  await set(false);
}
