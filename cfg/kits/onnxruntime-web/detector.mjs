// The exported detector on ONNX Runtime Web, for browsers and Node.
import { resize } from "./resize.mjs";

// ort: the module onnxruntime-web; model: address or bytes of model.onnx; facts: of model.json.
export async function createDetector(ort, model, facts) {
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });

  // image: { data, width, height } with RGBA bytes, as ImageData has them, upright.
  // Returns [{ name, score, box: [x1, y1, x2, y2] in pixels }] above conf, best first.
  return async function detect(image, conf = 0.25) {
    const sizes = BigInt64Array.of(BigInt(image.width), BigInt(image.height));
    const { labels, boxes, scores } = await session.run({
      images: new ort.Tensor("float32", prepare(image, facts), [1, 3, facts.height, facts.width]),
      orig_target_sizes: new ort.Tensor("int64", sizes, [1, 2]),
    });
    const found = [];
    for (let i = 0; i < scores.data.length && scores.data[i] > conf; i++) {
      const box = Array.from(boxes.data.slice(4 * i, 4 * i + 4));
      found.push({ name: facts.names[Number(labels.data[i])], score: scores.data[i], box });
    }
    return found;
  };
}

// One line per object: name, score, x1 y1 x2 y2.
export function describe(found) {
  const line = ({ name, score, box }) =>
    [name, score.toFixed(4), ...box.map((edge) => edge.toFixed(2))].join(" ");
  return found.map(line).join("\n");
}

// Stretches to the model's size; planar RGB in 0..1.
function prepare({ data, width, height }, facts) {
  const rgb = new Uint8Array(3 * width * height);
  for (let i = 0, at = 0; at < rgb.length; i += 4) {
    rgb[at++] = data[i];
    rgb[at++] = data[i + 1];
    rgb[at++] = data[i + 2];
  }
  const pixels = resize(rgb, width, height, facts.width, facts.height, facts.antialias);
  const area = facts.width * facts.height;
  const planes = new Float32Array(3 * area);
  for (let i = 0; i < area; i++)
    for (let channel = 0; channel < 3; channel++)
      planes[channel * area + i] = pixels[3 * i + channel] / 255;
  return planes;
}
