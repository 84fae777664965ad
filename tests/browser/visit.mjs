// What the visits share: Chromium, our templates, and a record of the panel on screen.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, join } from "node:path";

const require = createRequire(join(process.env.PLAYWRIGHT_FOLDER, "package.json"));
const { chromium } = require("playwright-core");
const OFF = ["background-networking", "component-update", "sync", "gpu", "quic"];
const QUIET = OFF.map((what) => `--disable-${what}`);
export const SLOW = 120_000; // milliseconds; tests share the machine
export const RUN = 300_000;

/** Open the page, do the visit, and print as JSON what was seen. */
export async function visit(url, artifacts, doIt) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM_PATH,
    args: ["--headless", "--no-sandbox", "--no-first-run", "--autoplay-policy=no-user-gesture-required", ...QUIET],
  });
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  const seen = { errors: [] };
  page.on("pageerror", (error) => /letstalk/i.test(error.stack ?? "") && seen.errors.push(error.stack));
  const shoot = (name) => page.screenshot({ path: join(artifacts, `${name}.png`) });
  try {
    await open(page, url);
    await doIt({ page, seen, shoot });
  } finally {
    await browser.close();
  }
  console.log(JSON.stringify(seen));
}

export async function open(page, url) {
  await page.goto(url, { timeout: SLOW });
  await page.waitForFunction(() => window.app?.graph && window.app.extensionManager, null, { timeout: SLOW });
  await page.waitForTimeout(2000); // the first workflow is loaded a moment later
}

/** Let nodes be drawn by Vue, or on the canvas, from the next `open` on. */
export async function setVue(page, on) {
  await page.waitForFunction(() => window.app?.extensionManager?.setting, null, { timeout: SLOW });
  await page.evaluate((value) => window.app.extensionManager.setting.set("Comfy.VueNodes.Enabled", value), on);
}

/** Let the page hear a message as if the server had sent it. */
export async function tell(page, type, data) {
  await page.evaluate(
    (message) => window.app.api.socket.dispatchEvent(new MessageEvent("message", { data: message })),
    JSON.stringify({ type, data }),
  );
}

/** Load the workflow of separate nodes into a new tab, with values of Talking Video changed. Returns its id. */
export async function loadQuickstart(page, values) {
  const id = await page.evaluate(async (changed) => {
    const { app } = window;
    const url = app.api.apiURL("/workflow_templates/LetsTalk/2_step_by_step.json");
    const graph = await (await fetch(url)).json();
    await app.loadGraphData({ ...graph, id: "00000000-0000-4000-8000-000000000000" }); // the same in every tab
    const node = app.graph._nodes.find((candidate) => candidate.type === "LetsTalkTalkingVideo");
    for (const [name, value] of Object.entries(changed)) {
      node.widgets.find((widget) => widget.name === name).value = value;
    }
    return String(node.id);
  }, values);
  await page.waitForTimeout(1500);
  return id;
}

/** A file as `dropOnNode` takes it. */
export const dropped = (path, type) => ({ name: basename(path), type, base64: readFileSync(path).toString("base64") });

/**
 * Drop a file where it would fall on screen: in the lower half of a node, or `atTitle`. Returns what the node's list
 * then names, which begins as the file does.
 */
export async function dropOnNode(page, type, list, file, atTitle = false) {
  await page.evaluate(
    ([nodeType, { name, type: mime, base64 }, high]) => {
      const { canvas, graph } = window.app;
      const node = graph._nodes.find((candidate) => candidate.type === nodeType);
      const box = canvas.canvas.getBoundingClientRect();
      const { scale, offset } = canvas.ds;
      const [x, y] = [node.pos[0] + node.size[0] / 2, node.pos[1] + (high ? 10 : 0.7 * node.size[1])];
      const [clientX, clientY] = [box.left + (x + offset[0]) * scale, box.top + (y + offset[1]) * scale];
      const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], name, { type: mime }));
      const target = document.elementFromPoint(clientX, clientY);
      for (const kind of ["dragenter", "dragover", "drop"]) {
        target.dispatchEvent(
          new DragEvent(kind, { bubbles: true, cancelable: true, clientX, clientY, dataTransfer }),
        );
      }
    },
    [type, file, atTitle],
  );
  const chosen = ([nodeType, widget, stem]) => {
    const node = window.app.graph._nodes.find((candidate) => candidate.type === nodeType);
    const { value } = node.widgets.find((candidate) => candidate.name === widget);
    return value.startsWith(stem) ? value : null;
  };
  const stem = file.name.replace(/\.\w+$/, "");
  return (await page.waitForFunction(chosen, [type, list, stem], { timeout: 20_000 })).jsonValue();
}

/** From now on `window.seenPanels` tells each state of the panel on screen. */
export async function watchPanel(page) {
  await page.evaluate(() => {
    window.seenPanels = [];
    clearInterval(window.panelWatch);
    window.panelWatch = setInterval(() => {
      const panel = document.querySelector(".letstalk-panel");
      if (!panel) return;
      const video = panel.querySelector("video.front");
      const now = {
        phase: panel.dataset.phase,
        line: panel.querySelector(".letstalk-line").textContent,
        done: parseFloat(panel.querySelector(".letstalk-done").style.width) || 0,
        head: parseFloat(panel.querySelector(".letstalk-head").style.left) || 0,
        aria: panel.querySelector(".letstalk-strip").getAttribute("aria-valuetext"),
        ready: video?.readyState ?? 0,
        duration: Number.isFinite(video?.duration) ? video.duration : 0,
        time: video?.currentTime ?? 0,
        type: video?.currentSrc ? new URL(video.currentSrc).searchParams.get("type") : null,
        file: video?.currentSrc ? new URL(video.currentSrc).searchParams.get("filename") : null,
      };
      if (JSON.stringify(now) !== JSON.stringify(window.seenPanels.at(-1))) window.seenPanels.push(now);
    }, 100);
  });
}

export const lastPanel = (page) => page.evaluate(() => window.seenPanels.at(-1));
