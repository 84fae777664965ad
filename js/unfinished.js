/**
 * Runs that were begun and not finished: which of them a node of the graph on screen would continue if it had their
 * seeds. A fresh node changes its seed after each run, so that the same graph alone never continues anything.
 *
 * @typedef {Record<string, {class_type: string, inputs: Record<string, any>}>} ApiGraph  as the server runs it
 *
 * @typedef {object} UnfinishedRun  as `/letstalk/unfinished` tells it
 * @property {string} node
 * @property {ApiGraph} graph  the node and all that it depends on
 * @property {number} made  seconds of the video that are finished
 * @property {number} seconds  in all
 *
 * @typedef {{node: string, input: string, value: number}} Seed  what a widget of the graph on screen must be set to
 */

const SEEDS = new Set(["seed", "noise_seed"]);
const FREE = new Set(["unfinished"]); // no part of what a run is recognised by
const START_ANEW = "start anew";

/** @param {{fetchApi: (path: string) => Promise<Response>}} api @returns {Promise<UnfinishedRun[]>} */
export async function unfinishedRuns(api) {
  const response = await api.fetchApi("/letstalk/unfinished");
  return response.ok ? response.json() : [];
}

/**
 * The seeds with which a node continues a run; null if it differs in more than them.
 * @param {UnfinishedRun} run
 * @param {ApiGraph} graph  on screen
 * @param {string} node
 * @returns {?Seed[]}
 */
export function seedsToContinue(run, graph, node) {
  if (graph[node]?.inputs.unfinished === START_ANEW) return null;
  /** @type {Map<string, Seed>} */
  const seeds = new Map();
  const compared = new Set();
  const same = (/** @type {string} */ theirs, /** @type {string} */ mine) => {
    const pair = `${theirs} ${mine}`;
    if (compared.has(pair)) return true;
    compared.add(pair);
    const [old, now] = [run.graph[theirs], graph[mine]];
    if (!old || !now || old.class_type !== now.class_type) return false;
    const names = new Set([...Object.keys(old.inputs), ...Object.keys(now.inputs)]);
    for (const name of names) {
      const [before, after] = [old.inputs[name], now.inputs[name]];
      if (isLink(before) && isLink(after)) {
        if (before[1] !== after[1] || !same(String(before[0]), String(after[0]))) return false;
      } else if (SEEDS.has(name) && typeof before === "number" && typeof after === "number") {
        seeds.set(`${mine} ${name}`, { node: mine, input: name, value: before });
      } else if (!FREE.has(name) && JSON.stringify(before) !== JSON.stringify(after)) {
        return false;
      }
    }
    return true;
  };
  return same(run.node, node) ? [...seeds.values()] : null;
}

/** @param {any} value */
function isLink(value) {
  return Array.isArray(value) && value.length === 2 && typeof value[1] === "number";
}

/**
 * Set a widget, and keep the frontend from changing it before it queues the graph; the returned function undoes that.
 * @param {any} node
 * @param {Seed} seed
 */
export function setSeed(node, { input, value }) {
  const widget = node?.widgets?.find((/** @type {any} */ candidate) => candidate.name === input);
  if (!widget) return () => {};
  const control = widget.linkedWidgets?.find((/** @type {any} */ linked) => linked.name === "control_after_generate");
  const before = control?.value;
  if (control) control.value = "fixed";
  widget.value = value;
  widget.callback?.(value);
  return () => {
    if (control) control.value = before;
  };
}
