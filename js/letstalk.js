/** LetsTalk in ComfyUI's frontend: panels on samplers and loaders, for the classic canvas and for Vue nodes. */

import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { keepSearchWords, searchByWords, sortTemplates } from "./browse.js";
import { foldAdvanced } from "./fold.js";
import { labelLists } from "./labels.js";
import { hasFiles, KINDS, LoaderPanel } from "./loader.js";
import { Panel } from "./panel.js";
import { advance, finish, halt, idleRun } from "./run_state.js";
import { stringsOf } from "./strings.js";
import { listenToQueue, openTab, tabOf, watchQueue } from "./tabs.js";
import { seedsToContinue, setSeed, unfinishedRuns } from "./unfinished.js";

/** @typedef {import("./run_state.js").RunState} RunState */

/** Nodes that send `letstalk.clip` and, at the end, `ui.letstalk`. */
const SAMPLERS = new Set(["LetsTalkPortraitVideo", "LetsTalkTalkingVideo", "LetsTalkLongVideoSampler"]);
const LOADERS = new Map([
  ["LetsTalkLoadPortrait", { kind: KINDS.image, widget: "image" }],
  ["LetsTalkLoadSpeech", { kind: KINDS.audio, widget: "audio" }],
]);
const MIN_WIDTH = 320; // the line of text then fits
const VIDEO_LOADS = [300, 1000, 3000]; // milliseconds: the frontend makes no room for its video once it is there
const TAB_CHANGES = [0, 100, 1000]; // milliseconds: the frontend names the open tab some time after making its nodes
const LOAD_FAILED = 10_000; // milliseconds: a workflow that cannot be read is never said to be loaded
const STOPPING = 500; // milliseconds: a stopped run closes its files first
const MARGIN = 10; // around a DOM widget on the canvas, above and below it together twice this

/**
 * Runs by tab and node, so that they outlive a node that is made anew when the user changes tabs.
 * @type {Map<string, RunState>}
 */
const runs = new Map();
/** Between two tabs the nodes are those of the next, but the open tab is not; nothing is shown then. */
let changingTabs = false;
/** @type {WeakMap<object, Panel>} */
const panels = new WeakMap();
/** Panels that offer to continue a run. @type {Set<Panel>} */
const offers = new Set();
/** @type {ReturnType<typeof setTimeout>|undefined} */
let offerTimer;

const locale = () => String(app.ui?.settings?.getSettingValue?.("Comfy.Locale") ?? "en");
const text = () => stringsOf(locale());
const rootGraph = () => app.rootGraph ?? app.graph;
const typeOf = (/** @type {any} */ node) => node?.comfyClass ?? node?.constructor?.comfyClass ?? node?.type;
const keyOf = (/** @type {string} */ tab, /** @type {string|number} */ node) => `${tab}/${node}`;

/** The node with an execution id, which names the subgraphs around it: "3:12". @param {string} id */
function findNode(id) {
  const path = String(id).split(":");
  const last = path.pop();
  let graph = rootGraph();
  for (const step of path) graph = graph?.getNodeById(step)?.subgraph;
  return graph?.getNodeById(last) ?? null;
}

/** Let the panel of a run show it, if its node is on screen. @param {string} key  of the run */
function show(key) {
  const [tab, id] = [key.slice(0, key.indexOf("/")), key.slice(key.indexOf("/") + 1)];
  const node = !changingTabs && tab === openTab() ? findNode(id) : null;
  const run = runs.get(key);
  if (node && run) panels.get(node)?.show(run);
}

/** @param {import("./run_state.js").ClipEvent} event */
function onClip(event) {
  const key = keyOf(tabOf(event.prompt), event.node);
  runs.set(key, advance(runs.get(key) ?? idleRun(), event, Date.now()));
  show(key);
  if (event.clip < 0) offerSoon(0); // what is being continued is offered no more
}

/**
 * Show a preview of latents in the panel, if it is of a run of ours. Returns whether it is.
 * @param {{blob: Blob, displayNodeId: string, jobId?: string, promptId?: string}} detail
 */
function takePreview({ blob, displayNodeId: id, jobId, promptId }) {
  const tab = tabOf(jobId ?? promptId);
  if (runs.get(keyOf(tab, id))?.phase !== "running") return false;
  const node = !changingTabs && tab === openTab() ? findNode(id) : null;
  if (node) panels.get(node)?.preview(blob);
  return true;
}

/**
 * Keep previews of our runs from the frontend. It holds the last one beyond the end of a run and tries to play it in
 * place of the video ("Video failed to load"); it listens before any extension can, so the event must not be.
 */
function withholdPreviews() {
  const { dispatchCustomEvent } = api;
  api.dispatchCustomEvent = function (/** @type {string} */ type, /** @type {any} */ detail) {
    if (type === "b_preview_with_metadata" && takePreview(detail)) return true;
    return dispatchCustomEvent.call(this, type, detail);
  };
}

/**
 * The end of a sampler that shows something itself.
 * @param {{node: string, prompt_id?: string, output?: any}} detail
 */
function onExecuted({ node: id, prompt_id: prompt, output }) {
  const summary = output?.letstalk?.[0];
  const key = keyOf(tabOf(prompt), id);
  const run = runs.get(key) ?? idleRun();
  if (!summary && run.phase !== "running") return;
  runs.set(key, finish(run, summary ?? {}, Boolean(output?.images?.length), Date.now()));
  show(key);
}

/**
 * Let every run of a prompt end, whether or not its node is on screen.
 * @param {(run: RunState, key: string) => RunState} end
 * @param {?string} prompt
 */
function endRuns(end, prompt) {
  for (const [key, run] of runs) {
    if (run.phase !== "running" || (prompt && run.prompt && run.prompt !== prompt)) continue;
    const ended = end(run, key);
    if (ended === run) continue;
    runs.set(key, ended);
    show(key);
  }
}

/** Tell the panels of the open tab which runs they could continue. */
async function offerUnfinished() {
  if (changingTabs) return;
  const unfinished = await unfinishedRuns(api);
  /** @type {import("./unfinished.js").ApiGraph} */
  const graph = unfinished.length ? (await app.graphToPrompt()).output : {};
  for (const panel of offers) panel.offer(null);
  offers.clear();
  for (const [id, { class_type: type }] of Object.entries(graph)) {
    const panel = SAMPLERS.has(type) ? panels.get(findNode(id)) : undefined;
    if (!panel || runs.get(keyOf(openTab(), id))?.phase === "running") continue;
    for (const run of unfinished) {
      const seeds = seedsToContinue(run, graph, id);
      if (!seeds) continue;
      const seed = seeds.find(({ node }) => node === id)?.value ?? seeds[0]?.value ?? null;
      panel.offer({ made: run.made, seconds: run.seconds, seed, accept: () => goOn(seeds) });
      offers.add(panel);
      break;
    }
  }
}

/** @param {number} [wait]  milliseconds */
function offerSoon(wait = STOPPING) {
  clearTimeout(offerTimer);
  offerTimer = setTimeout(() => offerUnfinished().catch(() => {}), wait); // without an answer there is no offer
}

/** Queue the graph with the seeds of an unfinished run. @param {import("./unfinished.js").Seed[]} seeds */
async function goOn(seeds) {
  const undo = seeds.map((seed) => setSeed(findNode(seed.node), seed));
  try {
    await app.queuePrompt(0);
  } finally {
    for (const restore of undo) restore();
  }
}

/** Show what is known about the nodes of the tab that was opened. */
function showTab() {
  changingTabs = false;
  const ids = new Set([...runs.keys()].map((key) => key.slice(key.indexOf("/") + 1)));
  for (const id of ids) panels.get(findNode(id))?.show(runs.get(keyOf(openTab(), id)) ?? idleRun());
  offerSoon();
}

function listen() {
  listenToQueue();
  api.addEventListener("letstalk.clip", (/** @type {any} */ { detail }) => onClip(detail));
  withholdPreviews();
  api.addEventListener("executed", (/** @type {any} */ { detail }) => onExecuted(detail));
  api.addEventListener("execution_interrupted", (/** @type {any} */ { detail }) => {
    endRuns((run) => halt(run, "stopped", "", Date.now()), detail?.prompt_id);
    offerSoon();
  });
  api.addEventListener("execution_error", (/** @type {any} */ { detail }) => {
    const why = String(detail?.exception_message ?? "").trim();
    const failed = keyOf(tabOf(detail?.prompt_id), detail?.node_id);
    if (SAMPLERS.has(detail?.node_type) && runs.get(failed)?.phase !== "running") {
      runs.set(failed, { ...idleRun(), phase: "running", prompt: detail.prompt_id }); // it failed before its first clip
    }
    endRuns((run, key) => {
      const own = key.endsWith(`/${detail?.node_id}`);
      return halt(run, own ? "failed" : "stopped", own ? why : "", Date.now());
    }, detail?.prompt_id);
    offerSoon();
  });
  api.addEventListener("execution_success", (/** @type {any} */ { detail }) => {
    endRuns((run) => finish(run, {}, false, Date.now()), detail?.prompt_id);
  });
  api.addEventListener("reconnected", () => offerSoon()); // a server that was killed leaves runs behind
  api.addEventListener("executing", (/** @type {any} */ { detail }) => {
    // A sampler with nothing of its own to show sends no `executed`; it is done when another node's turn comes.
    const now = typeof detail === "object" ? detail?.node : detail;
    endRuns((run, key) => {
      const other = now !== null && now !== undefined && !key.endsWith(`/${now}`);
      return other && run.clipsDone >= run.clips ? finish(run, {}, false, Date.now()) : run;
    }, null);
  });
}

/** Make a node large enough for its widgets; room that it has already is used first. @param {any} node */
function fit(node) {
  const needed = node.computeSize?.();
  if (needed) {
    // Not as wide as is asked for: the frontend's video asks for more than the node's width, each time anew.
    node.setSize?.([Math.max(node.size[0], MIN_WIDTH), Math.max(node.size[1], needed[1])]);
  }
  node.setDirtyCanvas?.(true, true);
}

/**
 * @param {any} node
 * @param {string} name
 * @param {HTMLElement} element
 * @param {() => number} min
 * @param {() => number|undefined} max
 */
function addPanel(node, name, element, min, max) {
  const margin = 2 * MARGIN;
  const widget = node.addDOMWidget(name, "letstalk", element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => min() + margin,
    getMaxHeight: () => (max() === undefined ? undefined : Number(max()) + margin),
  });
  widget.serialize = false; // or saved workflows would carry an empty value for it
  element.style.minHeight = `${min()}px`; // Vue nodes ask the element, not the widget
  return widget;
}

/** @param {any} node */
function addSamplerPanel(node) {
  let height = 0; // of the node, before the player was in it
  const panel = new Panel(text(), (path) => api.apiURL(path), () => {
    panel.element.style.minHeight = `${panel.minHeight}px`;
    if (panel.screen) height ||= node.size[1];
    else if (height) {
      node.setSize?.([node.size[0], Math.min(height, node.size[1])]); // for a while the finished video was there, too
      height = 0;
    }
    fit(node);
  });
  panels.set(node, panel);
  watchQueue(addPanel(node, "letstalk_progress", panel.element, () => panel.minHeight, () => panel.maxHeight));
  panel.show(idleRun());
  foldAdvanced(node, panel);
  fit(node);
  const { onExecuted, onRemoved } = node;
  node.onExecuted = function (/** @type {any} */ output, /** @type {any[]} */ ...rest) {
    onExecuted?.call(this, output, ...rest);
    for (const wait of VIDEO_LOADS) setTimeout(() => fit(node), wait);
  };
  node.onRemoved = function (/** @type {any[]} */ ...rest) {
    panel.dispose();
    onRemoved?.apply(this, rest);
  };
}

/** @param {any} node @param {{kind: import("./loader.js").Kind, widget: string}} loader */
function addLoaderPanel(node, { kind, widget: name }) {
  const list = node.widgets?.find((/** @type {any} */ widget) => widget.name === name);
  if (!list) return;
  const choose = (/** @type {string} */ value) => {
    const values = list.options?.values;
    if (Array.isArray(values) && !values.includes(value)) values.push(value);
    list.value = value;
    list.callback?.(value);
    node.setDirtyCanvas?.(true, true);
  };
  const panel = new LoaderPanel(kind, text(), api, choose);
  const highest = kind.tag === "img" ? undefined : kind.height;
  const widget = addPanel(node, "letstalk_preview", panel.element, () => kind.height, () => highest);
  widget.label = text()[kind.title]; // App mode names it
  const { callback } = list;
  list.callback = function (/** @type {any} */ value, /** @type {any[]} */ ...rest) {
    panel.show(String(value));
    return callback?.call(this, value, ...rest);
  };
  const { onConfigure } = node;
  node.onConfigure = function (/** @type {any[]} */ ...rest) {
    onConfigure?.apply(this, rest);
    panel.show(String(list.value)); // a workflow sets values without calling back
  };
  node.onDragOver = hasFiles;
  node.onDragDrop = (/** @type {DragEvent} */ event) => panel.take(event.dataTransfer?.files ?? []);
  panel.show(String(list.value));
  fit(node);
}

function addStylesheet() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./letstalk.css", import.meta.url).href;
  document.head.append(link);
}

sortTemplates(api); // at once: the frontend may ask before it sets extensions up

app.registerExtension({
  name: "letstalk.panels",
  setup() {
    addStylesheet();
    listen();
    searchByWords();
  },
  beforeRegisterNodeDef: keepSearchWords,
  nodeCreated(/** @type {any} */ node) {
    const type = typeOf(node);
    if (String(type).startsWith("LetsTalk")) labelLists(node, locale());
    if (SAMPLERS.has(type)) addSamplerPanel(node);
    const loader = LOADERS.get(type);
    if (loader) addLoaderPanel(node, loader);
  },
  beforeConfigureGraph() {
    changingTabs = true;
    setTimeout(showTab, LOAD_FAILED);
  },
  afterConfigureGraph() {
    for (const wait of TAB_CHANGES) setTimeout(showTab, wait);
  },
});
