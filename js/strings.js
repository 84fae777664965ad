/**
 * The few words of the panels. Node titles, inputs and tooltips are in `locales/`, which the frontend reads itself.
 *
 * @typedef {typeof EN} Strings
 */

const EN = {
  idle: "Clips play here as they are made.",
  clip: (/** @type {number} */ n, /** @type {number} */ all) => `clip ${n} of ${all}`,
  clips: (/** @type {number} */ n) => (n === 1 ? "1 clip" : `${n} clips`),
  seconds: (/** @type {number} */ s) => `${s.toFixed(1)} s`,
  of: (/** @type {number} */ made, /** @type {number} */ all) => `${made.toFixed(1)} s of ${all.toFixed(1)} s`,
  left: (/** @type {string} */ time) => `${time} left`,
  took: (/** @type {string} */ time) => `made in ${time}`,
  finishing: "writing the video",
  stopped: "stopped",
  failed: "stopped by an error",
  more: (/** @type {number} */ n) => `${n} more settings`,
  fewer: "Fewer settings",
  goOn: (/** @type {string} */ made, /** @type {?number} */ seed) =>
    `Continue (${made}${seed === null ? "" : `, seed ${seed}`})`,
  goOnTip: "A run of these settings was not finished. Queue the graph with its seed, to make only what is missing.",
  strip: "Clips made, and where playback is",
  play: "Play",
  pause: "Pause",
  mute: "Mute",
  unmute: "Unmute",
  follow: "Follow: play each stretch as soon as it is made",
  waiting: "The next stretch is being made…",
  gone: "This stretch is no longer on the server; ComfyUI clears its temp folder when it restarts.",
  picture: "Picture",
  recording: "Recording",
  uploadImage: "Upload a picture, or drop one here",
  uploadAudio: "Upload a sound, or drop one here",
  uploading: (/** @type {string} */ name) => `Uploading ${name}…`,
  uploadFailed: (/** @type {string} */ why) => `Upload failed: ${why}`,
  notImage: "That is not a picture. Drop a PNG, JPEG or WebP file.",
  notAudio: "That is not a sound. Drop a WAV, MP3, FLAC, OGG or M4A file, or a video with sound.",
  previewOf: (/** @type {string} */ name) => `Preview of ${name}`,
  noPreview: "no preview",
};

/** @type {Strings} */
const ZH = {
  idle: "片段生成后会在这里播放。",
  clip: (n, all) => `第 ${n}/${all} 个片段`,
  clips: (n) => `${n} 个片段`,
  seconds: (s) => `${s.toFixed(1)} 秒`,
  of: (made, all) => `${made.toFixed(1)} / ${all.toFixed(1)} 秒`,
  left: (time) => `剩余 ${time}`,
  took: (time) => `用时 ${time}`,
  finishing: "正在写入视频",
  stopped: "已停止",
  failed: "因错误停止",
  more: (n) => `另外 ${n} 项设置`,
  fewer: "收起设置",
  goOn: (made, seed) => `继续（${made}${seed === null ? "" : `，种子 ${seed}`}）`,
  goOnTip: "以这些设置开始的一次运行没有完成。用它的种子重新排队，只生成缺少的部分。",
  strip: "已生成的片段与播放位置",
  play: "播放",
  pause: "暂停",
  mute: "静音",
  unmute: "取消静音",
  follow: "跟随：每段生成后立即播放",
  waiting: "正在生成下一段…",
  gone: "服务器上已没有这一段；ComfyUI 重启时会清空临时文件夹。",
  picture: "图片",
  recording: "录音",
  uploadImage: "上传图片，或拖放到这里",
  uploadAudio: "上传音频，或拖放到这里",
  uploading: (name) => `正在上传 ${name}…`,
  uploadFailed: (why) => `上传失败：${why}`,
  notImage: "这不是图片。请拖放 PNG、JPEG 或 WebP 文件。",
  notAudio: "这不是音频。请拖放 WAV、MP3、FLAC、OGG、M4A 文件，或带声音的视频。",
  previewOf: (name) => `${name} 的预览`,
  noPreview: "无预览",
};

/** @param {string} locale  as in the setting Comfy.Locale @returns {Strings} */
export function stringsOf(locale) {
  return locale.toLowerCase().startsWith("zh") ? ZH : EN;
}
