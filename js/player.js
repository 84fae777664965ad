/** Plays finished stretches of a video one after the other, with sound, while further ones are still being made. */

/** @typedef {import("./run_state.js").Stretch} Stretch */

/** Two video elements take turns: one plays while the other loads what comes next, so that there is no black gap. */
export class Player {
  /**
   * @param {(path: string) => string} toURL
   * @param {() => void} onChange  called whenever something that the panel shows has changed
   */
  constructor(toURL, onChange) {
    this.toURL = toURL;
    this.onChange = onChange;
    this.muted = false;
    this.follow = true;
    this.element = document.createElement("div");
    this.element.className = "letstalk-screen";
    /** @type {HTMLVideoElement[]} */
    this.videos = [0, 1].map(() => this.#makeVideo());
    this.element.append(...this.videos);
    this.reset();
  }

  #makeVideo() {
    const video = document.createElement("video");
    video.playsInline = true;
    video.preload = "auto";
    video.disablePictureInPicture = true;
    video.tabIndex = -1; // the panel's own buttons take the keyboard
    video.addEventListener("ended", () => video === this.front && this.#ended());
    video.addEventListener("error", () => video === this.front && video.currentSrc && this.#fail());
    for (const event of ["timeupdate", "play", "pause", "seeked", "loadeddata"]) {
      video.addEventListener(event, () => video === this.front && this.onChange());
    }
    return video;
  }

  /** Forget everything: a new run starts. Mute and follow stay as the user set them. */
  reset() {
    /** @type {Stretch[]} */
    this.stretches = [];
    this.live = false;
    this.index = -1; // of the stretch in the front video
    this.wanted = false; // the user, or follow, wants it to play
    this.waiting = false; // for a stretch that is not made yet
    this.failed = false;
    for (const video of this.videos) this.#empty(video);
    this.front = this.videos[0];
    this.#raise();
  }

  /** @param {HTMLVideoElement} video */
  #empty(video) {
    video.pause();
    video.removeAttribute("src");
    video.load();
    delete video.dataset.path;
  }

  get back() {
    return this.videos[this.front === this.videos[0] ? 1 : 0];
  }

  get playing() {
    return this.wanted && !this.waiting && !this.failed;
  }

  /** Second of the whole video. Counted from a stretch's end: after a reload of the page the first start is a guess. */
  get position() {
    const stretch = this.stretches[this.index];
    if (!stretch) return 0;
    const { duration, currentTime } = this.front;
    if (!Number.isFinite(duration)) return stretch.start;
    return Math.min(stretch.end, Math.max(stretch.start, stretch.end - duration + currentTime));
  }

  /**
   * @param {Stretch[]} stretches  all that are finished
   * @param {boolean} live  more are to come
   */
  update(stretches, live) {
    this.stretches = stretches;
    this.live = live;
    if (!live && this.waiting && this.index + 1 >= stretches.length) {
      this.waiting = this.wanted = false;
    }
    if (this.index < 0 && stretches.length) {
      this.wanted = live && this.follow;
      this.#show(0, 0);
    } else if (this.waiting && this.index + 1 < stretches.length) {
      this.#show(this.index + 1, 0);
    } else {
      this.#preload();
    }
  }

  play() {
    if (this.index < 0) return;
    this.wanted = true;
    this.failed = false;
    if (this.front.ended) this.index + 1 < this.stretches.length ? this.#show(this.index + 1, 0) : this.#atEnd(true);
    else this.#start();
    this.onChange();
  }

  pause() {
    this.wanted = this.waiting = false;
    this.front.pause();
    this.onChange();
  }

  /** @param {boolean} muted */
  mute(muted) {
    this.muted = muted;
    for (const video of this.videos) video.muted = muted;
    this.onChange();
  }

  /**
   * Go to a second of the whole video, at most to the end of what is finished.
   * @param {number} second
   * @param {number} index  of the stretch that holds it
   */
  seek(second, index) {
    const stretch = this.stretches[index];
    if (!stretch) return;
    this.waiting = this.failed = false;
    if (index === this.index && Number.isFinite(this.front.duration)) {
      this.front.currentTime = Math.max(0, this.front.duration - (stretch.end - second));
      if (this.wanted) this.#start();
    } else {
      this.#show(index, stretch.end - second);
    }
    this.onChange();
  }

  /**
   * Bring a stretch to the front once its first picture is there; what is shown stays until then.
   * @param {number} index
   * @param {number} beforeEnd  seconds before its end to start at; 0 or less: its beginning
   */
  #show(index, beforeEnd) {
    const video = this.back;
    this.index = index;
    this.waiting = false;
    this.#load(video, index);
    const old = this.front;
    this.front = video;
    const ready = () => {
      if (this.front !== video || video.dataset.path !== this.stretches[index]?.path) return; // overtaken
      if (beforeEnd > 0) video.currentTime = Math.max(0, video.duration - beforeEnd);
      old.pause();
      this.#raise();
      if (this.wanted) this.#start();
      this.#preload();
      this.onChange();
    };
    if (video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) {
      if (beforeEnd <= 0) video.currentTime = 0;
      ready();
    } else {
      video.addEventListener("loadeddata", ready, { once: true });
    }
  }

  /** @param {HTMLVideoElement} video @param {number} index */
  #load(video, index) {
    const { path } = this.stretches[index];
    if (video.dataset.path === path) return;
    video.dataset.path = path;
    video.muted = this.muted;
    video.src = this.toURL(path);
  }

  #preload() {
    const ready = this.front.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
    if (ready && this.index + 1 < this.stretches.length) this.#load(this.back, this.index + 1);
  }

  #start() {
    const video = this.front;
    video.play().catch((error) => {
      if (error.name !== "NotAllowedError" || this.muted) return;
      this.mute(true); // browsers refuse sound before the first click on a page
      video.play().catch(() => this.pause());
    });
  }

  #ended() {
    if (!this.wanted) return;
    if (this.index + 1 < this.stretches.length) this.#show(this.index + 1, 0);
    else this.#atEnd(false);
    this.onChange();
  }

  /** Nothing further is made: wait for more, or, asked to play again, begin anew. @param {boolean} asked */
  #atEnd(asked) {
    this.waiting = this.live && this.follow;
    if (this.waiting) return;
    this.wanted = asked;
    if (asked) this.#show(0, 0);
  }

  #fail() {
    this.failed = true;
    this.wanted = this.waiting = false;
    this.onChange();
  }

  #raise() {
    for (const video of this.videos) video.classList.toggle("front", video === this.front);
  }
}
