// kosmos.h for JavaScript. Every promise rejects with an Error whose code is as 'KOSMOS_ERROR_MODEL_NOT_FOUND', or with
// the signal's reason if an AbortSignal ended the call.
'use strict';

const path = require('node:path');
const addon = require(process.env.KOSMOS_ADDON ?? path.join(__dirname, 'kosmos.node'));

/** Runs start(cancel) and ends it when the signal says so. */
async function cancellable(signal, start) {
  signal?.throwIfAborted();
  const cancel = addon.createCancel();
  const abort = () => addon.setCancel(cancel);
  signal?.addEventListener('abort', abort, { once: true });
  try {
    const value = await start(cancel);
    signal?.throwIfAborted();
    return value;
  } catch (error) {
    if (error.code === 'KOSMOS_ERROR_CANCELLED') signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}

class Model {
  #handle;

  constructor(handle) {
    this.#handle = handle;
  }

  /** Opens a GGUF file. */
  static async load(file, { signal } = {}) {
    return new Model(await cancellable(signal, (cancel) => addon.load(file, cancel)));
  }

  /** Looks at a picture: data is a Uint8Array of RGB bytes, upright. What it returns serves any number of requests. */
  encode({ data, width, height }, { signal } = {}) {
    return cancellable(signal, (cancel) => addon.encode(this.#handle, data, width, height, cancel));
  }

  /**
   * What the picture shows: { text, phrases, notes }. phrases: { phrase, start, end, boxes }, with start and end in
   * bytes of the UTF-8 text and boxes in pixels. onText receives the text part by part, onPhrase each phrase with its boxes.
   */
  caption(image, options = {}) {
    return this.#answer(image, null, { ground: true, ...options });
  }

  /** The answer to a question, as caption. */
  ask(image, question, options = {}) {
    return this.#answer(image, question, options);
  }

  #answer(image, question, { ground = false, onText, onPhrase, signal }) {
    const onEvent = (event) => (event.text === undefined ? onPhrase?.(event) : onText?.(event.text));
    return cancellable(signal, (cancel) => addon.answer(this.#handle, image, question, ground, onEvent, cancel));
  }
}

module.exports = { Model };
