/** The panel of a sampler node: strip of clips, a line of text, and the player of what is finished. */

import { Player } from "./player.js";
import { describe, stretchAt } from "./run_state.js";

/** @typedef {import("./run_state.js").RunState} RunState */

const ICONS = {
  play: "M8 5v14l11-7z",
  pause: "M6 5h4v14H6zM14 5h4v14h-4z",
  sound: "M3 9v6h4l5 5V4L7 9zM14.5 8a5 5 0 0 1 0 8M17 5a9 9 0 0 1 0 14",
  muted: "M3 9v6h4l5 5V4L7 9zM15 9l6 6M21 9l-6 6",
  follow: "M5 5v14l8-7zM13 5v14l8-7z",
};
const SEPARATED_CLIPS = 80; // more than that would leave less than some pixels for each
const STATUS_HEIGHT = 52;
const PLAYER_HEIGHT = 250;
const ROW_HEIGHT = 30; // of a button below or above
const LINE_HEIGHT = 28; // what is left for the line of text; an error may need more
const MOST_TEXT = 150;
const STEP_SECONDS = 1;

export class Panel {
  /**
   * @param {import("./strings.js").Strings} text
   * @param {(path: string) => string} toURL
   * @param {() => void} onResize  the panel needs more room than before, or less
   */
  constructor(text, toURL, onResize) {
    this.text = text;
    this.onResize = onResize;
    this.player = new Player(toURL, () => this.#refresh());
    this.element = document.createElement("div");
    this.element.className = "letstalk-panel";
    this.playButton = this.#button(() => (this.player.wanted ? this.player.pause() : this.player.play()));
    this.muteButton = this.#button(() => this.player.mute(!this.player.muted));
    this.followButton = this.#button(() => {
      this.player.follow = !this.player.follow;
      this.#refresh();
    });
    this.strip = this.#makeStrip();
    this.message = make("div", "letstalk-message");
    this.latent = document.createElement("img");
    this.latent.className = "letstalk-latent";
    this.latent.alt = "";
    this.latent.addEventListener("load", () => URL.revokeObjectURL(this.latent.src));
    this.player.element.append(this.latent, this.message);
    this.line = make("div", "letstalk-line");
    this.offerButton = document.createElement("button");
    this.offerButton.type = "button";
    this.offerButton.className = "letstalk-offer";
    this.offerButton.hidden = true;
    this.offerButton.addEventListener("click", () => this.accept?.());
    this.foldButton = document.createElement("button");
    this.foldButton.type = "button";
    this.foldButton.className = "letstalk-fold";
    this.foldButton.hidden = true;
    const controls = make("div", "letstalk-controls");
    controls.append(this.playButton, this.muteButton, this.followButton);
    this.player.element.append(controls);
    this.element.append(this.foldButton, this.player.element, this.strip, this.line, this.offerButton);
    // A drag meant for the panel is none of the canvas's business.
    for (const event of ["pointerdown", "dblclick"]) {
      for (const part of [controls, this.offerButton, this.foldButton, this.line]) part.addEventListener(event, stop);
    }
    this.screen = false;
    this.excess = 0; // pixels that the text needs beyond its two lines
    this.prompt = null;
  }

  get minHeight() {
    const rows = [this.offerButton, this.foldButton].filter((button) => !button.hidden).length;
    return STATUS_HEIGHT + ROW_HEIGHT * rows + this.excess + (this.screen ? PLAYER_HEIGHT : 0);
  }

  get maxHeight() {
    return this.screen ? undefined : this.minHeight;
  }

  /**
   * A button that shows or hides the settings that are folded away, where the frontend has none of its own.
   * @param {number} count  of settings
   * @param {() => boolean} toggle  returns whether they are shown now
   * @param {boolean} shown
   */
  foldSettings(count, toggle, shown) {
    const { text, foldButton } = this;
    const tell = (/** @type {boolean} */ open) => {
      foldButton.textContent = open ? text.fewer : text.more(count);
      foldButton.setAttribute("aria-expanded", String(open));
    };
    foldButton.hidden = false;
    foldButton.onclick = () => tell(toggle());
    tell(shown);
    this.onResize();
  }

  /**
   * Offer to continue a run that was not finished, or, with null, nothing.
   * @param {?{made: number, seconds: number, seed: ?number, accept: () => void}} offer
   */
  offer(offer) {
    const { text, offerButton } = this;
    const changed = offerButton.hidden !== !offer;
    offerButton.hidden = !offer;
    this.accept = offer?.accept;
    if (offer) {
      offerButton.textContent = text.goOn(text.of(offer.made, offer.seconds), offer.seed);
      offerButton.title = text.goOnTip;
    }
    if (changed) this.onResize();
  }

  /** @param {RunState} run */
  show(run) {
    if (run.prompt !== this.prompt || run.stretches.length < this.player.stretches.length) this.#reset();
    this.prompt = run.prompt;
    this.run = run;
    this.player.update(run.stretches, run.phase === "running");
    clearInterval(this.timer);
    if (run.phase === "running" && run.secondsLeft !== null) {
      this.timer = setInterval(() => this.#refresh(), 1000);
    }
    this.#refresh();
  }

  /** Show what the sampler sees of the clip at work, as long as no stretch is finished. @param {Blob} picture */
  preview(picture) {
    if (this.run?.phase !== "running" || this.player.stretches.length) return;
    this.latent.src = URL.createObjectURL(picture);
    this.#refresh();
  }

  dispose() {
    clearInterval(this.timer);
    this.#reset();
  }

  #reset() {
    this.player.reset();
    this.latent.removeAttribute("src");
  }

  /** @param {() => void} act */
  #button(act) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(icon());
    button.addEventListener("click", act);
    button.addEventListener("keydown", (event) => ["Enter", " "].includes(event.key) && stop(event));
    return button;
  }

  #makeStrip() {
    const strip = make("div", "letstalk-strip");
    this.done = make("div", "letstalk-done");
    this.current = make("div", "letstalk-current");
    this.gaps = make("div", "letstalk-gaps");
    this.head = make("div", "letstalk-head");
    strip.append(this.done, this.current, this.gaps, this.head);
    strip.tabIndex = 0;
    strip.setAttribute("role", "slider");
    strip.setAttribute("aria-label", this.text.strip);
    strip.setAttribute("aria-valuemin", "0");
    strip.addEventListener("keydown", (event) => this.#key(event));
    strip.addEventListener("pointerdown", (event) => {
      stop(event);
      strip.setPointerCapture(event.pointerId);
      this.#point(event);
    });
    strip.addEventListener("pointermove", (event) => strip.hasPointerCapture(event.pointerId) && this.#point(event));
    return strip;
  }

  /** @param {PointerEvent} event */
  #point(event) {
    const box = this.strip.getBoundingClientRect(); // on screen, so zoomed like the event
    if (this.run && box.width) this.#seek(((event.clientX - box.left) / box.width) * this.#seconds);
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { position, stretches } = this.player;
    const last = stretches.at(-1)?.end ?? 0;
    /** @type {Record<string, () => void>} */
    const keys = {
      ArrowLeft: () => this.#seek(position - STEP_SECONDS),
      ArrowRight: () => this.#seek(position + STEP_SECONDS),
      PageDown: () => this.#seek(position - 10 * STEP_SECONDS),
      PageUp: () => this.#seek(position + 10 * STEP_SECONDS),
      Home: () => this.#seek(0),
      End: () => this.#seek(last),
      " ": () => this.playButton.click(),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    stop(event);
    keys[event.key]();
  }

  get #seconds() {
    return this.run ? this.run.frames / this.run.fps : 0;
  }

  /** To a second of the video, or as near to it as there is something finished. @param {number} second */
  #seek(second) {
    const { stretches } = this.player;
    if (!stretches.length) return;
    const within = Math.min(Math.max(second, stretches[0].start), stretches[stretches.length - 1].end - 0.04);
    this.player.seek(within, stretchAt(stretches, within));
  }

  #refresh() {
    const { run, player, text } = this;
    if (!run) return;
    const percent = (/** @type {number} */ frames) => `${run.frames ? (100 * frames) / run.frames : 0}%`;
    const running = run.phase === "running" && run.clipsDone < run.clips;
    this.element.dataset.phase = run.phase;
    this.done.style.width = percent(run.framesDone);
    this.current.style.left = percent(run.framesDone);
    this.current.style.width = running ? percent(Math.min(run.clipFrames, run.frames - run.framesDone)) : "0";
    this.gaps.style.backgroundSize = `${percent(run.clipFrames)} 100%`;
    this.gaps.hidden = run.clips < 2 || run.clips > SEPARATED_CLIPS;
    this.head.style.left = percent(player.position * run.fps);
    this.head.hidden = !player.stretches.length;

    this.line.textContent = describe(run, text, Date.now());
    this.line.title = this.line.textContent;
    this.strip.setAttribute("aria-valuemax", this.#seconds.toFixed(1));
    this.strip.setAttribute("aria-valuenow", player.position.toFixed(1));
    this.strip.setAttribute("aria-valuetext", `${text.of(player.position, this.#seconds)}, ${this.line.textContent}`);

    this.message.textContent = player.failed ? text.gone : player.waiting ? text.waiting : "";
    label(this.playButton, player.wanted ? ICONS.pause : ICONS.play, player.wanted ? text.pause : text.play);
    label(this.muteButton, player.muted ? ICONS.muted : ICONS.sound, player.muted ? text.unmute : text.mute);
    label(this.followButton, ICONS.follow, text.follow);
    this.followButton.setAttribute("aria-pressed", String(player.follow));
    this.followButton.hidden = run.phase !== "running";

    this.latent.hidden = run.phase !== "running" || player.stretches.length > 0 || !this.latent.hasAttribute("src");
    // Once the node itself shows the finished file, a second picture of the same would only be in the way.
    const played = player.stretches.length > 0 && !(run.phase === "done" && run.hasVideo && !player.wanted);
    const screen = played || !this.latent.hidden;
    this.playButton.parentElement?.toggleAttribute("hidden", !played);
    this.player.element.hidden = !screen;
    const full = run.phase === "failed" ? Math.min(this.line.scrollHeight, MOST_TEXT) : 0;
    const excess = Math.max(0, full - LINE_HEIGHT);
    if (screen !== this.screen || excess !== this.excess) {
      this.screen = screen;
      this.excess = excess;
      this.onResize();
    }
  }
}

/** @param {string} tag @param {string} className */
function make(tag, className) {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}

/** @param {Event} event */
function stop(event) {
  event.stopPropagation();
}

function icon() {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  return svg;
}

/** @param {HTMLButtonElement} button @param {string} path @param {string} name */
function label(button, path, name) {
  button.querySelector("path")?.setAttribute("d", path);
  button.title = name;
  button.setAttribute("aria-label", name);
}
