// A result as text, Markdown, JSON and COCO, as Result.to_markdown and Result.to_coco of Python write them.

/** One of "text", "markdown", "json", "coco". */
export function written(form, result, name) {
  if (form === "text") return result.text;
  if (form === "markdown") return markdown(result, name);
  return JSON.stringify(form === "coco" ? coco(result, name) : result, null, 2);
}

function markdown(result, name) {
  const text = Array.from(result.text); // spans count code points
  const base = Array.from(name, (c) => (" ()<>".includes(c) ? `%${c.charCodeAt(0).toString(16).toUpperCase()}` : c)).join("");
  let out = "";
  let end = 0;
  for (const entity of [...result.entities].sort((a, b) => a.span[0] - b.span[0] || a.span[1] - b.span[1])) {
    const links = entity.boxes.filter((box) => box.valid).map((box) => `(${base}#${fragment(box)})`);
    if (!links.length || !entity.phrase || entity.span[0] < end) continue;
    out += `${escaped(text.slice(end, entity.span[0]).join(""))}[${escaped(entity.phrase)}]${links[0]}`;
    links.slice(1).forEach((link, at) => (out += `[${at + 2}]${link}`));
    end = entity.span[1];
  }
  return out + escaped(text.slice(end).join(""));
}

const escaped = (text) => text.replace(/[\\`*_[\]<>#]/g, "\\$&");

function fragment(box) {
  const [x1, y1, x2, y2] = box.pixels;
  return `xywh=pixel:${[decimal(x1), decimal(y1), difference(x2, x1), difference(y2, y1)].join(",")}`;
}

/** A number as an integer and its count of decimals: exact, so that no 0.30000000000000004 is written. */
function scaled(number) {
  const [mantissa, exponent = "0"] = String(number).split("e");
  const [whole, part = ""] = mantissa.split(".");
  const places = part.length - Number(exponent);
  const digits = BigInt(whole + part);
  return places < 0 ? [digits * 10n ** BigInt(-places), 0] : [digits, places];
}

function unscaled(digits, places) {
  const sign = digits < 0n ? "-" : "";
  const text = String(digits < 0n ? -digits : digits).padStart(places + 1, "0");
  const whole = text.slice(0, text.length - places);
  const part = text.slice(text.length - places).replace(/0+$/, "");
  return sign + whole + (part && `.${part}`);
}

const decimal = (number) => unscaled(...scaled(number));

function difference(a, b) {
  const [x, m] = scaled(a);
  const [y, n] = scaled(b);
  const places = Math.max(m, n);
  return unscaled(x * 10n ** BigInt(places - m) - y * 10n ** BigInt(places - n), places);
}

function coco(result, name) {
  const ids = new Map();
  const annotations = [];
  for (const entity of result.entities) {
    if (!ids.has(entity.phrase)) ids.set(entity.phrase, ids.size + 1);
    for (const box of entity.boxes) {
      if (!box.valid) continue;
      const [x1, y1, x2, y2] = box.pixels;
      annotations.push({
        id: annotations.length + 1,
        image_id: 1,
        category_id: ids.get(entity.phrase),
        bbox: [x1, y1, x2 - x1, y2 - y1],
        area: (x2 - x1) * (y2 - y1),
        iscrowd: 0,
        score: box.score,
      });
    }
  }
  return {
    images: [{ id: 1, file_name: name, width: result.width, height: result.height }],
    annotations,
    categories: [...ids].map(([phrase, id]) => ({ id, name: phrase })),
  };
}

/** Puts a text on the clipboard; false if the browser does not let it. */
export async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return byHand(text); // pages of http: on another machine have no clipboard of their own
  }
}

function byHand(text) {
  const area = document.createElement("textarea");
  const before = document.activeElement;
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  before?.focus();
  return done;
}
