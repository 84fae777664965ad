/** Which tab of the frontend is open, and in which one each prompt was queued. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

/**
 * Names of tabs by the frontend's workflow objects, which outlive a change of tab and a new name of the file.
 * Neither the graph's id nor the file tells tabs apart: two of one template share the id, unsaved ones have no file.
 * @type {WeakMap<object, string>}
 */
const names = new WeakMap();
let count = 0;
/** @type {Map<string, string>} */
const tabOfPrompt = new Map();
/** Tab in which Run was last pressed, until the server has told the prompt's id. @type {?string} */
let asked = null;

/** Name of the tab that is open: while a workflow loads still that of the one before. */
export function openTab() {
  const workflow = app.extensionManager?.workflow?.activeWorkflow;
  if (!workflow) return String((app.rootGraph ?? app.graph)?.id ?? "");
  const name = names.get(workflow) ?? `tab${++count}`;
  names.set(workflow, name);
  return name;
}

/** Note the tab when the user presses Run: the frontend then asks all widgets. @param {any} widget */
export function watchQueue(widget) {
  widget.beforeQueued = () => {
    asked = openTab();
  };
}

/** The frontend tells that something was queued, but not its id; the server's queue does. */
async function learnPrompts() {
  const tab = asked;
  if (tab === null) return;
  const queue = await (await api.fetchApi("/queue")).json();
  for (const [, prompt] of [...queue.queue_running, ...queue.queue_pending]) {
    if (!tabOfPrompt.has(prompt)) tabOfPrompt.set(prompt, tab);
  }
  if (asked === tab) asked = null;
}

export function listenToQueue() {
  // Without an answer `tabOf` takes the tab in which Run was pressed last.
  api.addEventListener("promptQueued", () => learnPrompts().catch(() => {}));
}

/**
 * Tab in which a prompt was queued. One of which nothing is known, as after a reload of the page, stays in the tab
 * that is open at its first event.
 * @param {?string|undefined} prompt
 */
export function tabOf(prompt) {
  const key = prompt ?? "";
  const tab = tabOfPrompt.get(key) ?? asked ?? openTab();
  tabOfPrompt.set(key, tab);
  return tab;
}
