// The short graph as people meet it: two drops, one click, a video: node drops.mjs URL ARTIFACTS NAME IMAGE SOUND
// Prints one JSON object of what was seen; the checks are in test_drops.py.
import { dropped, dropOnNode, open, RUN, setVue, SLOW, visit } from "./visit.mjs";

const [url, artifacts, name, image, sound] = process.argv.slice(2);

await visit(url, artifacts, async ({ page, seen, shoot }) => {
  for (const renderer of name === "own" ? ["canvas"] : ["canvas", "vue"]) {
    await setVue(page, renderer === "vue");
    await open(page, url);
    await page.evaluate(async () => {
      const path = window.app.api.apiURL("/workflow_templates/LetsTalk/1_quickstart.json");
      await window.app.loadGraphData(await (await fetch(path)).json());
      window.ended = new Promise((resolve) => {
        const tell = ({ detail }) => resolve(detail?.exception_message ?? "");
        for (const kind of ["execution_success", "execution_error"]) window.app.api.addEventListener(kind, tell);
      });
    });
    await page.waitForTimeout(2000);
    const look = (seen[renderer] = {});
    look.image = await dropOnNode(page, "LetsTalkLoadPortrait", "image", dropped(image, "image/jpeg"));
    look.sound = await dropOnNode(page, "LetsTalkLoadSpeech", "audio", dropped(sound, "audio/wav"));
    await page.waitForTimeout(1000); // previews
    await shoot(`${name}_${renderer}_dropped`);
    await page.getByTestId("queue-button").first().click({ timeout: SLOW });
    look.error = await Promise.race([page.evaluate(() => window.ended), page.waitForTimeout(RUN)]);
    const shown = () =>
      [...document.querySelectorAll("video")]
        .filter((video) => !video.closest(".letstalk-panel") && video.readyState > 1)
        .map(({ duration, currentSrc }) => [duration, new URL(currentSrc).searchParams.get("type")]);
    await page.waitForFunction(`(${shown})().length > 1`, null, { timeout: 20_000 }).catch(() => {});
    look.videos = await page.evaluate(shown);
    await shoot(`${name}_${renderer}_made`);
  }
  await setVue(page, false);
});
