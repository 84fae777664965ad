/**
 * What is known about one run of a sampler node, and how it is told in words. No DOM and no ComfyUI in here.
 *
 * @typedef {object} ClipEvent  what the server sends as `letstalk.clip`
 * @property {string} node  execution id of the node, "12" or "3:12" inside subgraphs
 * @property {?string} prompt
 * @property {number} clip  index of the clip just finished; -1 at the start of a run
 * @property {number} clips
 * @property {number} frames_done
 * @property {number} frames
 * @property {number} fps
 * @property {?number} seconds_left
 * @property {?{filename: string, subfolder: string, type: string}} media  frames finished since the last media
 *
 * @typedef {object} Stretch  a finished piece of video that can be played
 * @property {string} path  API path of the file
 * @property {number} start  first second of the whole video in it
 * @property {number} end
 *
 * @typedef {object} RunState
 * @property {"idle"|"running"|"done"|"stopped"|"failed"} phase
 * @property {?string} prompt
 * @property {number} clipsDone
 * @property {number} clips
 * @property {number} framesDone
 * @property {number} frames
 * @property {number} fps
 * @property {number} clipFrames  of a whole clip, as far as known
 * @property {?number} secondsLeft  as told at `toldAt`
 * @property {number} toldAt  milliseconds
 * @property {number} startedAt
 * @property {number} endedAt
 * @property {Stretch[]} stretches
 * @property {string} note  a line of the summary or of an error
 * @property {boolean} hasVideo  the node itself shows the finished file
 */

/** @returns {RunState} */
export function idleRun() {
  return {
    phase: "idle", prompt: null, clipsDone: 0, clips: 0, framesDone: 0, frames: 0, fps: 25, clipFrames: 0,
    secondsLeft: null, toldAt: 0, startedAt: 0, endedAt: 0, stretches: [], note: "", hasVideo: false,
  };
}

/**
 * The state after an event. A clip of -1, or of another prompt, starts afresh.
 * @param {RunState} run
 * @param {ClipEvent} event
 * @param {number} now  milliseconds
 * @returns {RunState}
 */
export function advance(run, event, now) {
  const fresh = event.clip < 0 || run.phase === "idle" || (event.prompt ?? null) !== run.prompt;
  const old = fresh ? { ...idleRun(), startedAt: now, prompt: event.prompt ?? null } : run;
  const next = {
    ...old,
    phase: /** @type {const} */ ("running"),
    clipsDone: Math.max(0, event.clip + 1),
    clips: event.clips,
    framesDone: event.frames_done,
    frames: event.frames,
    fps: event.fps > 0 ? event.fps : 25,
    secondsLeft: event.seconds_left ?? null,
    toldAt: now,
  };
  const whole = event.clip >= 0 && event.clip + 1 < event.clips; // the last clip may be shorter
  next.clipFrames = whole ? event.frames_done / (event.clip + 1) : old.clipFrames || event.frames / event.clips || 0;
  const path = mediaPath(event.media);
  if (path) {
    const start = next.stretches.at(-1)?.end ?? 0;
    next.stretches = [...next.stretches, { path, start, end: next.framesDone / next.fps }];
  }
  return next;
}

/**
 * Only what ComfyUI itself keeps in its temp folder is ever fetched.
 * @param {ClipEvent["media"]} media
 * @returns {?string}
 */
export function mediaPath(media) {
  if (!media || media.type !== "temp" || typeof media.filename !== "string") return null;
  const query = new URLSearchParams({ filename: media.filename, subfolder: media.subfolder ?? "", type: "temp" });
  return `/view?${query}`;
}

/**
 * @param {RunState} run
 * @param {{clips?: number, frames?: number, seconds?: number, model?: string}} summary  `ui.letstalk[0]`
 * @param {boolean} hasVideo
 * @param {number} now
 * @returns {RunState}
 */
export function finish(run, summary, hasVideo, now) {
  const clips = summary.clips ?? run.clips;
  const frames = summary.frames ?? run.frames;
  const fps = summary.seconds && frames ? frames / summary.seconds : run.fps;
  const sameRun = run.phase === "running";
  return {
    ...run, phase: "done", clips, clipsDone: clips, frames, framesDone: frames, fps, secondsLeft: 0,
    note: summary.model ?? "", hasVideo, startedAt: sameRun ? run.startedAt : 0, endedAt: sameRun ? now : 0,
  };
}

/**
 * @param {RunState} run
 * @param {"stopped"|"failed"} phase
 * @param {string} note
 * @param {number} now
 * @returns {RunState}
 */
export function halt(run, phase, note, now) {
  return run.phase === "running" ? { ...run, phase, note, secondsLeft: null, endedAt: now } : run;
}

/** Seconds as 0:42 or 1:02:03. @param {number} seconds */
export function clock(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const pad = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

/**
 * The line under the strip, in the words of `text` (strings.js).
 * @param {RunState} run
 * @param {import("./strings.js").Strings} text
 * @param {number} now  milliseconds
 */
export function describe(run, text, now) {
  const [made, all] = [run.framesDone / run.fps, run.frames / run.fps];
  const parts = [];
  if (run.phase === "idle") return text.idle;
  if (run.phase === "done") {
    parts.push(text.clips(run.clips), text.seconds(all));
    if (run.endedAt > run.startedAt) parts.push(text.took(clock((run.endedAt - run.startedAt) / 1000)));
    if (run.note) parts.push(run.note);
    return parts.join(" · ");
  }
  if (run.phase === "running") {
    parts.push(text.clip(Math.min(run.clipsDone + 1, run.clips), run.clips), text.of(made, all));
    if (run.clipsDone >= run.clips) parts.push(text.finishing);
    else if (run.secondsLeft !== null) parts.push(text.left(clock(run.secondsLeft - (now - run.toldAt) / 1000)));
    return parts.join(" · ");
  }
  parts.push(run.phase === "stopped" ? text.stopped : text.failed);
  if (run.frames) parts.push(text.of(made, all));
  if (run.note) parts.push(run.note);
  return parts.join(" · ");
}

/**
 * Index of the stretch that holds a second of the video; -1 if it is not made yet.
 * @param {Stretch[]} stretches  in order
 * @param {number} second
 */
export function stretchAt(stretches, second) {
  let [low, high] = [0, stretches.length - 1];
  if (high < 0 || second < 0 || second >= stretches[high].end) return -1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (second < stretches[middle].end) high = middle;
    else low = middle + 1;
  }
  return low;
}
