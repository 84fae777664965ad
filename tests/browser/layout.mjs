// Every template in both renderers: node layout.mjs URL ARTIFACTS NAME
// Prints one JSON object of what was seen; the checks are in test_layout.py.
import { open, setVue, SLOW, tell, visit } from "./visit.mjs";

const [url, artifacts, name] = process.argv.slice(2);

await visit(url, artifacts, async ({ page, seen, shoot }) => {
  seen.order = (await page.evaluate(() => window.app.api.getWorkflowTemplates())).LetsTalk;
  await listed({ page, seen, shoot });
  seen.search = await page.evaluate(search);
  if (name === "newest") seen.app = await appMode({ page, shoot });
  for (const renderer of ["canvas", "vue"]) {
    await setVue(page, renderer === "vue");
    await open(page, url);
    seen[renderer] = {};
    for (const template of seen.order) {
      await page.evaluate(async (title) => {
        const path = window.app.api.apiURL(`/workflow_templates/LetsTalk/${title}.json`);
        await window.app.loadGraphData(await (await fetch(path)).json());
      }, template);
      await page.waitForTimeout(1500);
      seen[renderer][template] = await page.evaluate(look);
      if (template === seen.order[0] || process.env.SHOOT_ALL) await shoot(`${name}_${renderer}_${template}`);
    }
    seen[renderer].folding = await fold(page, renderer);
    await shoot(`${name}_${renderer}_unfolded`);
    seen[renderer].complaint = await complain(page);
    await shoot(`${name}_${renderer}_error`);
  }
  await setVue(page, false);
});

/** Titles of the cards of our pack in the templates dialog, as they stand there. */
async function listed({ page, seen, shoot }) {
  await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.BrowseTemplates"));
  const dialog = page.getByRole("dialog");
  await dialog.getByText("LetsTalk", { exact: true }).first().click({ timeout: SLOW });
  const cards = dialog.getByText(/^\d+[_ ]\w+/);
  await cards.first().waitFor({ timeout: SLOW });
  await page.waitForTimeout(1000);
  seen.cards = await cards.allTextContents();
  await shoot(`${name}_templates`);
  await page.keyboard.press("Escape");
}

/** What the node search of the frontend finds first for what people type. */
function search() {
  const { $pinia } = document.querySelector("#vue-app").__vue_app__.config.globalProperties;
  const service = $pinia._s.get("nodeDef").nodeSearchService;
  const words = ["talking", "lip sync", "talking head", "audio to video", "portrait", "avatar"];
  return Object.fromEntries(words.map((word) => [word, service.searchNode(word, [], { limit: 5 }).map((d) => d.name)]));
}

/** Buttons of our panels that App mode shows of the first template. */
async function appMode({ page, shoot }) {
  await page.evaluate(async () => {
    const path = window.app.api.apiURL("/workflow_templates/LetsTalk/1_quickstart.json");
    await window.app.loadGraphData(await (await fetch(path)).json());
    await window.app.extensionManager.command.execute("Comfy.ToggleLinear");
  });
  await page.waitForTimeout(3000);
  await shoot("newest_app");
  const buttons = await page.locator(".letstalk-loader button:visible").allTextContents();
  await page.evaluate(() => window.app.extensionManager.command.execute("Comfy.ToggleLinear"));
  return buttons;
}

/** Boxes of nodes with their titles, as drawn, and of groups: left, top, right, bottom. */
function look() {
  const { scale } = window.app.canvas.ds;
  const nodes = window.app.graph._nodes.map((node) => {
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    const [x, y] = node.pos;
    const [width, height] = drawn ? [drawn.width / scale, drawn.height / scale - 30] : node.size;
    return { type: node.type, box: [x, y - 30, x + width, y + height], drawn: Boolean(drawn), colour: node.color };
  });
  const groups = window.app.graph._groups.map(({ title, color, _bounding: [x, y, width, height] }) => {
    return { title, colour: color, box: [x, y, x + width, y + height] };
  });
  return { nodes, groups };
}

/** Rows of settings that a fresh Talking Video shows, before and after they are asked for, and how far apart. */
async function fold(page, renderer) {
  await page.evaluate(async () => {
    await window.app.loadGraphData({ nodes: [], links: [], groups: [], version: 0.4 });
    const node = window.LiteGraph.createNode("LetsTalkTalkingVideo");
    node.pos = [300, 200];
    window.app.graph.add(node);
  });
  await page.waitForTimeout(1500);
  const count = () =>
    page.evaluate((vue) => {
      const [node] = window.app.graph._nodes;
      const own = node.widgets.filter(({ name }) => !name.startsWith("letstalk_") && !name.startsWith("$$"));
      if (!vue) return own.filter((widget) => node.isWidgetVisible(widget)).length;
      return document.querySelectorAll(`[data-node-id="${node.id}"] .lg-node-widget`).length;
    }, renderer === "vue");
  const before = await count();
  const rows = await page.evaluate(() => {
    const [node] = window.app.graph._nodes;
    const tops = node.widgets.filter((widget) => node.isWidgetVisible(widget)).map((widget) => widget.y);
    return tops.slice(1).map((top, i) => top - tops[i]);
  });
  const button = page.locator(".letstalk-fold:visible").or(page.getByText(/show advanced/i)).first();
  if (!(await button.count())) return { before, after: before, rows };
  await button.click({ timeout: 10_000 });
  await page.waitForTimeout(1000);
  return { before, after: await count(), rows };
}

/** How much of a long error the panel of the only node shows: its last word, pixels that are cut off, pixels outside. */
async function complain(page) {
  const nodes = await page.evaluate(() => window.app.graph._nodes.map(({ id, type }) => [String(id), type]));
  const [[id, type]] = nodes;
  const message = `model: ${"what does not fit here is told in one line that names the value, ".repeat(4)}and the remedy`;
  const failed = { node_id: id, node_type: type, exception_type: "LetsTalk.ConfigError", exception_message: message };
  await tell(page, "execution_error", { prompt_id: "failed", traceback: [], executed: [], ...failed });
  await page.waitForTimeout(1500);
  await page.keyboard.press("Escape"); // the frontend's own dialog
  await page.waitForTimeout(500);
  return page.evaluate(() => {
    const line = document.querySelector(".letstalk-panel .letstalk-line");
    if (!line) return null; // as in the Vue nodes of frontend 1.27
    const [inner, outer] = [line, line.closest(".letstalk-panel")].map((part) => part.getBoundingClientRect());
    const last = line.textContent.trim().split(" ").at(-1);
    return { last, hidden: line.scrollHeight - line.clientHeight, outside: inner.bottom - outer.bottom };
  });
}
