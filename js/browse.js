/** How templates and nodes are found in the frontend's lists. */

const SHORT_NODE = "LetsTalkPortraitVideo";
const KNOWS_ALIASES = 40; // minor version of a frontend whose search reads them; older ones look at names alone
/** @type {string[]} */
let words = [];

/**
 * Let the example workflows be listed in their order; the server tells them in that of its file system.
 * @param {any} api
 */
export function sortTemplates(api) {
  const { getWorkflowTemplates } = api;
  if (!getWorkflowTemplates) return;
  const pack = new URL(import.meta.url).pathname.split("/").at(-2) ?? "";
  api.getWorkflowTemplates = async function () {
    const templates = await getWorkflowTemplates.call(this);
    const byNumber = new Intl.Collator("en", { numeric: true });
    templates?.[decodeURIComponent(pack)]?.sort(byNumber.compare);
    return templates;
  };
}

/**
 * Keep the search words of the short node, which the server tells.
 * @param {any} _type
 * @param {{name: string, search_aliases?: string[]}} definition
 */
export function keepSearchWords(_type, definition) {
  if (definition.name === SHORT_NODE) words = definition.search_aliases ?? [];
}

/** Let older frontends, whose search looks at names alone, find the short node by its words, too. */
export function searchByWords() {
  const [major, minor] = String(/** @type {any} */ (window).__COMFYUI_FRONTEND_VERSION__ ?? "").split(".").map(Number);
  if (!(major === 1 && minor < KNOWS_ALIASES)) return;
  const root = /** @type {any} */ (document.querySelector("#vue-app"));
  const store = root?.__vue_app__?.config.globalProperties.$pinia?._s.get("nodeDef");
  const search = store?.nodeSearchService && Object.getPrototypeOf(store.nodeSearchService);
  if (!search?.searchNode) return;
  const { searchNode } = search;
  /** @type {(this: any, query: string, filters: any[], ...rest: any[]) => any[]} */
  search.searchNode = function (query, filters, ...rest) {
    const found = searchNode.call(this, query, filters, ...rest);
    const asked = String(query).trim().toLowerCase();
    const short = store.nodeDefsByName?.[SHORT_NODE];
    if (!short || filters?.length || asked.length < 3 || !words.some((word) => word.startsWith(asked))) return found;
    return [short, ...found.filter((/** @type {any} */ definition) => definition.name !== SHORT_NODE)];
  };
}
