/** Settings that are seldom used, folded away on the canvas. */

import { app } from "../../scripts/app.js";

const NO_ROW = -4; // a height that cancels the gap after it

/**
 * Fold advanced widgets away on the canvas as in Vue nodes, which have a button for them; so has the panel here.
 * @param {any} node
 * @param {import("./panel.js").Panel} panel
 */
export function foldAdvanced(node, panel) {
  const setting = (/** @type {string} */ name) => app.ui?.settings?.getSettingValue?.(name);
  if (setting("Comfy.VueNodes.Enabled") || setting("Comfy.Node.AlwaysShowAdvancedWidgets")) return;
  const folded = (node.widgets ?? []).filter((/** @type {any} */ widget) => widget.options?.advanced);
  if (!folded.length || !node.toggleAdvanced) return;
  for (const widget of folded) {
    widget.advanced = true;
    // The canvas does not draw what is folded away, and leaves room for it all the same.
    widget.computeSize = () => [0, node.showAdvanced ? window.LiteGraph.NODE_WIDGET_HEIGHT : NO_ROW];
  }
  const toggle = () => {
    node.toggleAdvanced();
    return Boolean(node.showAdvanced);
  };
  const tell = () => panel.foldSettings(folded.length, toggle, Boolean(node.showAdvanced));
  const { onConfigure } = node;
  node.onConfigure = function (/** @type {any[]} */ ...rest) {
    onConfigure?.apply(this, rest);
    tell(); // a workflow may have been saved with them shown
  };
  tell();
}
