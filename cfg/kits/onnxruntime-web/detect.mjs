// The same detector in Node: npm install onnxruntime-web sharp; node detect.mjs bus.jpg [0.25]
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import sharp from "sharp";
import { createDetector, describe } from "./detector.mjs";

const here = (name) => readFile(new URL(name, import.meta.url));
const [path, conf = "0.25"] = process.argv.slice(2);
const detect = await createDetector(ort, await here("model.onnx"), JSON.parse(await here("model.json")));
const image = sharp(path).rotate().toColourspace("srgb").ensureAlpha().raw(); // upright, RGBA
const { data, info } = await image.toBuffer({ resolveWithObject: true });
console.log(describe(await detect({ data, width: info.width, height: info.height }, Number(conf))));
