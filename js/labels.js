/** What entries of lists are called on screen; their values, which workflows hold, stay English. */

/** @type {Record<string, string>} */
const ZH = {
  "last frame": "最后一帧",
  "all frames": "全部帧",
  continue: "继续",
  "start anew": "重新开始",
  model: "模型自带",
  default: "默认",
  auto: "自动",
  detector: "检测器",
  mask: "遮罩",
  bbox: "边界框",
  "whole picture": "整张图片",
  "face only": "仅人脸",
  "frame size": "与帧同大",
  "double size": "两倍大小",
  "portrait size": "与肖像同大",
  off: "关闭",
  "use it": "直接使用",
  "train anew": "重新训练",
  "bundled demo portrait": "内置演示肖像",
  "bundled demo scene": "内置演示场景",
  "bundled demo speech": "内置演示语音",
  bundled: "内置",
};
const BRACKETED = /^(.+) \((.+)\)$/;

/** @param {string} value */
function chinese(value) {
  const [, name, kind] = BRACKETED.exec(value) ?? [];
  return ZH[value] ?? (kind && ZH[kind] ? `${name}（${ZH[kind]}）` : value);
}

/**
 * Label the lists of a node in the user's language, where the frontend knows labels beside values.
 * @param {any} node
 * @param {string} locale
 */
export function labelLists(node, locale) {
  if (!locale.toLowerCase().startsWith("zh")) return;
  for (const widget of node.widgets ?? []) {
    if (widget.type !== "combo" || widget.name === "control_after_generate" || widget.options?.getOptionLabel) continue;
    widget.options.getOptionLabel = (/** @type {?string} */ value) => chinese(value ?? "");
  }
}
