// node caption.js [--ask QUESTION] [--stop-after PARTS] MODEL.gguf PICTURE.ppm
// Says what a picture shows while the model says it, then prints the boxes in pixels. Ctrl-C cancels.
'use strict';

const fs = require('node:fs/promises');
const { parseArgs } = require('node:util');
const { Model } = require('./kosmos.js');

/** A binary PPM file. Other formats: see README.md. */
async function readPpm(file) {
  const bytes = await fs.readFile(file);
  const header = /^P6(?:\s|#.*\n)+(\d+)(?:\s|#.*\n)+(\d+)(?:\s|#.*\n)+255\s/.exec(bytes.toString('latin1', 0, 200));
  if (header === null) throw new Error(`${file}: not a PPM picture of 8 bits`);
  const [width, height] = [Number(header[1]), Number(header[2])];
  const data = bytes.subarray(header[0].length, header[0].length + width * height * 3);
  if (data.length !== width * height * 3) throw new Error(`${file}: the picture is cut off`);
  return { data, width, height };
}

async function main() {
  const { values, positionals } = parseArgs({
    options: { ask: { type: 'string' }, 'stop-after': { type: 'string', default: '0' } },
    allowPositionals: true,
  });
  if (positionals.length !== 2) {
    console.error('usage: node caption.js [--ask QUESTION] [--stop-after PARTS] MODEL.gguf PICTURE.ppm');
    return 2;
  }
  const abort = new AbortController();
  process.once('SIGINT', () => abort.abort(new Error('interrupted')));
  const { signal } = abort;
  let parts = 0;
  const onText = (text) => {
    process.stdout.write(text);
    if (++parts === Number(values['stop-after'])) abort.abort(new Error('enough'));
  };

  try {
    const picture = await readPpm(positionals[1]);
    const model = await Model.load(positionals[0], { signal });
    const image = await model.encode(picture, { signal });
    const { phrases } = await model.caption(image, { onText, signal });
    process.stdout.write('\n');
    for (const { phrase, boxes } of phrases)
      for (const { x1, y1, x2, y2 } of boxes)
        console.log(`${phrase}\t${[x1, y1, x2, y2].map((v) => v.toFixed(1)).join(' ')}`);
    if (values.ask !== undefined) {
      await model.ask(image, values.ask, { onText, signal });
      process.stdout.write('\n');
    }
    return 0;
  } catch (error) {
    if (signal.aborted) {
      console.error(`\ncancelled: ${signal.reason.message}`);
      return 130;
    }
    console.error(error.message);
    return 1;
  }
}

main().then((status) => {
  process.exitCode = status;
});
