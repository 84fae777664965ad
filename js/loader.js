/** The panel of a loader node: upload button, drop target, and a look at (or a listen to) what is chosen. */

/**
 * @typedef {object} Kind
 * @property {string} mime  beginnings of accepted types, joined by commas, as `<input accept>` has them
 * @property {RegExp} extension  for files whose type the browser does not know
 * @property {RegExp} bundled  picks the name of a bundled file out of its entry in the list
 * @property {string} preview  extension of the bundled previews in `demo/`
 * @property {number} height  of the panel
 * @property {"img"|"audio"} tag
 * @property {"uploadImage"|"uploadAudio"} button
 * @property {"notImage"|"notAudio"} refusal
 * @property {"picture"|"recording"} title
 */

/** @type {Record<"image"|"audio", Kind>} */
export const KINDS = {
  image: {
    mime: "image/",
    extension: /\.(png|jpe?g|webp|bmp|gif|tiff?|avif|jp2|tga|ppm)$/i,
    bundled: /^(\w+) \(bundled demo (?:portrait|scene)\)$/,
    preview: "jpg",
    height: 200,
    tag: "img",
    button: "uploadImage",
    refusal: "notImage",
    title: "picture",
  },
  audio: {
    mime: "audio/,video/",
    extension: /\.(wav|mp3|flac|ogg|opus|m4a|aac|wma|aiff?|mp4|mov|mkv|webm|avi)$/i,
    bundled: /^(\w+) \(bundled demo speech\)$/,
    preview: "mp3",
    height: 72,
    tag: "audio",
    button: "uploadAudio",
    refusal: "notAudio",
    title: "recording",
  },
};

/** @param {File} file @param {Kind} kind */
export function accepts(file, kind) {
  return kind.mime.split(",").some((start) => file.type.startsWith(start)) || kind.extension.test(file.name);
}

/**
 * Where the browser finds a preview of an entry of the list.
 * @param {string} name
 * @param {Kind} kind
 * @param {(path: string) => string} toURL
 */
export function previewURL(name, kind, toURL) {
  const bundled = kind.bundled.exec(name);
  if (bundled) return new URL(`./demo/${bundled[1]}.${kind.preview}`, import.meta.url).href;
  const parts = name.replace(/ \[input\]$/, "").split("/");
  const query = new URLSearchParams({ filename: parts.pop() ?? "", subfolder: parts.join("/"), type: "input" });
  if (kind.tag === "img") query.set("preview", "webp;80");
  return toURL(`/view?${query}`);
}

export class LoaderPanel {
  /**
   * @param {Kind} kind
   * @param {import("./strings.js").Strings} text
   * @param {{fetchApi: (path: string, init: object) => Promise<Response>, apiURL: (path: string) => string}} api
   * @param {(name: string) => void} choose  set the node's list to a file that was uploaded
   */
  constructor(kind, text, api, choose) {
    Object.assign(this, { kind, text, api, choose });
    this.element = document.createElement("div");
    this.element.className = "letstalk-loader";
    this.picker = document.createElement("input");
    this.picker.type = "file";
    this.picker.accept = kind.mime.split(",").map((start) => `${start}*`).join(",");
    this.picker.hidden = true;
    this.picker.addEventListener("change", () => this.take(this.picker.files ?? []));
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text[kind.button];
    button.addEventListener("click", () => this.picker.click());
    this.line = document.createElement("div");
    this.line.className = "letstalk-line";
    this.line.setAttribute("role", "status");
    this.view = document.createElement(kind.tag);
    if (this.view instanceof HTMLAudioElement) Object.assign(this.view, { controls: true, preload: "metadata" });
    this.view.addEventListener("error", () => this.#tell(text.noPreview));
    this.view.addEventListener(kind.tag === "img" ? "load" : "loadedmetadata", () => this.#tell(""));
    this.element.append(button, this.picker, this.view, this.line);
    for (const event of ["pointerdown", "dblclick", "keydown"]) {
      this.element.addEventListener(event, (e) => e.target !== this.element && e.stopPropagation());
    }
    this.#listenForDrops();
  }

  #listenForDrops() {
    const over = (/** @type {boolean} */ is) => this.element.classList.toggle("over", is);
    this.element.addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      event.stopPropagation();
      over(true);
    });
    this.element.addEventListener("dragleave", () => over(false));
    this.element.addEventListener("drop", (event) => {
      over(false);
      if (!hasFiles(event)) return;
      event.preventDefault();
      event.stopPropagation(); // or ComfyUI would look for a workflow in the picture
      this.take(event.dataTransfer?.files ?? []);
    });
  }

  /** @param {string} name  the chosen entry */
  show(name) {
    if (!name || name === this.shown) return;
    this.shown = name;
    this.view.hidden = false;
    this.view.src = previewURL(name, this.kind, (path) => this.api.apiURL(path));
    if (this.view instanceof HTMLImageElement) this.view.alt = this.text.previewOf(name);
    else this.view.setAttribute("aria-label", this.text.previewOf(name));
  }

  /**
   * Upload the first file that fits, as ComfyUI's own loaders do, and choose it.
   * @param {ArrayLike<File>} files
   * @returns {Promise<boolean>} whether there was a file at all
   */
  async take(files) {
    const { kind, text } = this;
    if (!files.length) return false;
    const file = Array.from(files).find((candidate) => accepts(candidate, kind));
    if (!file) {
      this.#tell(text[kind.refusal]);
      return true;
    }
    this.#tell(text.uploading(file.name));
    try {
      const body = new FormData();
      body.append("image", file); // the field is called so whatever is in it
      const response = await this.api.fetchApi("/upload/image", { method: "POST", body });
      if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
      const { name, subfolder } = await response.json();
      this.#tell("");
      this.choose(subfolder ? `${subfolder}/${name}` : name);
    } catch (error) {
      this.#tell(text.uploadFailed(error instanceof Error ? error.message : String(error)));
    }
    this.picker.value = "";
    return true;
  }

  /** @param {string} words */
  #tell(words) {
    this.line.textContent = words;
    this.line.hidden = !words;
    if (words === this.text.noPreview) this.view.hidden = true;
  }
}

/** @param {DragEvent} event */
export function hasFiles(event) {
  return Array.from(event.dataTransfer?.items ?? []).some((item) => item.kind === "file");
}
