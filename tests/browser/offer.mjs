// The offer to continue an unfinished run: node offer.mjs URL ARTIFACTS NAME
// Prints one JSON object of what was seen; the checks are in test_offer.py.
import { loadQuickstart, open, setVue, visit } from "./visit.mjs";

const [url, artifacts, name] = process.argv.slice(2);

await visit(url, artifacts, async ({ page, seen, shoot }) => {
  /** @type {any[]} */
  const queued = [];
  await page.route("**/prompt", async (route) => {
    if (route.request().method() !== "POST") return route.continue();
    queued.push(route.request().postDataJSON().prompt);
    await route.fulfill({ json: { prompt_id: `made-up-${queued.length}`, number: 1, node_errors: {} } });
  });
  for (const renderer of ["canvas", "vue"]) {
    await setVue(page, renderer === "vue");
    await open(page, url);
    const look = async () => {
      const offer = page.locator(".letstalk-offer:visible");
      return (await offer.count()) ? offer.first().textContent() : null;
    };
    const offered = async (values, wait = 2000) => {
      await loadQuickstart(page, values);
      await page.waitForTimeout(2000);
      await page.locator(".letstalk-offer:visible").first().waitFor({ timeout: wait }).catch(() => {});
      return look();
    };
    seen[renderer] = { other: await offered({ seed: 5, crf: 30 }), same: await offered({ seed: 5 }, 20_000) };
    await shoot(`${name}_${renderer}_offer`);
    if (seen[renderer].same === null) continue; // where no panel is drawn
    await page.evaluate(() => {
      const node = window.app.graph._nodes.find(({ type }) => type === "LetsTalkTalkingVideo");
      const seed = node.widgets.find((widget) => widget.name === "seed");
      seed.linkedWidgets[0].value = "randomize";
    });
    // Not a click at a place: a slow machine does not draw often enough for playwright to call it stable.
    await page.locator(".letstalk-offer:visible").first().evaluate((button) => button.click());
    await page.waitForTimeout(1500);
    seen[renderer].queued = queued.splice(0);
    seen[renderer].control = await page.evaluate(() => {
      const node = window.app.graph._nodes.find(({ type }) => type === "LetsTalkTalkingVideo");
      return node.widgets.find((widget) => widget.name === "seed").linkedWidgets[0].value;
    });
  }
  await setVue(page, false);
});
