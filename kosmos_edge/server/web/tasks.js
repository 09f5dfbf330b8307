// The tasks: which route each one asks, and how its stream becomes parts of one result.

import { stream, Unreachable } from "./api.js";

/** The title above a result. */
export const TITLES = { caption: "Caption", ask: "Answer", locate: "Located", describe: "Description", read: "Text" };

/** Whether the served model gives boxes with a text. */
export const grounds = (about) => about.tasks.ground === null;

/**
 * Parts of the answer: {text}, {entity}, and at last {result}, with the fields of Result.to_dict().
 * picture: {uri, width, height}; input: the fields of the task's form.
 */
export async function* answer(task, picture, input, about, signal) {
  const image = picture.uri;
  if (task === "caption" && grounds(about)) {
    yield* ours("v1/ground", { image, length: input.length }, signal);
  } else if (task === "caption") {
    yield* moondream("v1/caption", { image_url: image, length: input.length }, picture, about, signal);
  } else if (task === "ask") {
    yield* chat(image, input, picture, about, signal);
  } else if (task === "locate") {
    yield* ours("v1/locate", { image, phrase: input.phrase }, signal);
  } else if (task === "describe") {
    yield* ours("v1/describe", { image, box: input.box, normalized: true }, signal);
  } else {
    yield* ours("v1/read", { image, markdown: input.markdown }, signal);
  }
}

async function* ours(path, body, signal) {
  for await (const { event, data } of stream(path, body, signal)) {
    if (event === "text") yield { text: data.text };
    else if (event === "entity") yield { entity: data.entity };
    else if (event === "done") {
      yield { result: data };
      return;
    }
  }
  throw new Unreachable(true);
}

async function* moondream(path, body, picture, about, signal) {
  let text = "";
  for await (const { data } of stream(path, body, signal)) {
    if (data.completed) {
      yield { result: assembled(text, [], picture, about) };
      return;
    }
    text += data.chunk;
    yield { text: data.chunk };
  }
  throw new Unreachable(true);
}

async function* chat(image, input, picture, about, signal) {
  const content = [
    { type: "image_url", image_url: { url: image } },
    { type: "text", text: input.question },
  ];
  const body = { messages: [{ role: "user", content }], ground: input.ground };
  const entities = [];
  const rest = {};
  let text = "";
  for await (const { data } of stream("v1/chat/completions", body, signal)) {
    if (data === "[DONE]") {
      yield { result: { ...assembled(text, entities, picture, about), ...rest } };
      return;
    }
    if (data.notes) rest.notes = data.notes;
    const choice = data.choices[0];
    if (!choice) continue;
    if (choice.finish_reason) rest.finish_reason = choice.finish_reason;
    for (const entity of choice.delta.grounding || []) {
      entities.push(entity);
      yield { entity };
    }
    if (choice.delta.content) {
      text += choice.delta.content;
      yield { text: choice.delta.content };
    }
  }
  throw new Unreachable(true);
}

/** A result of a route that does not send one whole. */
function assembled(text, entities, picture, about) {
  const { width, height } = picture;
  return { text, entities, width, height, finish_reason: "stop", model: about.model, notes: [] };
}
