// Stretches images as in training; pixels are RGB bytes, row by row. Bit for bit, but for tall
// images, where Pillow 13 begins with the columns and one level of 255 can differ.

// antialias: what the model saw in training, Pillow's bilinear filter (true) or OpenCV's (false).
export function resize(pixels, width, height, toWidth, toHeight, antialias) {
  if (!antialias) return opencvResize(pixels, width, height, toWidth, toHeight);
  const turned = stretchRows(pixels, width, height, toWidth);
  return stretchRows(turned, height, toWidth, toHeight);
}

// Pillow along x; returns the image transposed: (height, width) becomes (target, height).
function stretchRows(pixels, width, height, target) {
  const one = 1 << 22;
  const scale = width / target;
  const support = Math.max(scale, 1); // half the width of the triangle
  const stretched = new Uint8Array(3 * target * height);
  for (let x = 0; x < target; x++) {
    const center = (x + 0.5) * scale;
    const first = Math.max(Math.trunc(center - support + 0.5), 0);
    const last = Math.min(Math.trunc(center + support + 0.5), width);
    const shares = [];
    for (let i = first; i < last; i++)
      shares.push(Math.max(0, 1 - Math.abs((i - center + 0.5) * (1 / support))));
    const sum = shares.reduce((total, share) => total + share, 0);
    const weights = Int32Array.from(shares, (share) => Math.floor(0.5 + (share / sum) * one));
    for (let y = 0; y < height; y++) {
      for (let channel = 0; channel < 3; channel++) {
        let value = one / 2;
        for (let i = 0, at = 3 * (y * width + first) + channel; i < weights.length; i++, at += 3)
          value += pixels[at] * weights[i];
        stretched[3 * (x * height + y) + channel] = value >> 22;
      }
    }
  }
  return stretched;
}

// cv2.resize with INTER_LINEAR, which computes in integers.
function opencvResize(pixels, width, height, toWidth, toHeight) {
  const columns = taps(width, toWidth);
  const rows = taps(height, toHeight);
  const stretched = new Uint8Array(3 * toWidth * toHeight);
  for (let y = 0; y < toHeight; y++) {
    const [above, below, top, bottom] = rows[y];
    for (let x = 0; x < toWidth; x++) {
      const [left, right, near, far] = columns[x];
      for (let channel = 0; channel < 3; channel++) {
        const along = (row) =>
          pixels[3 * (row * width + left) + channel] * near +
          pixels[3 * (row * width + right) + channel] * far;
        const value = (((along(above) >> 4) * top) >> 16) + (((along(below) >> 4) * bottom) >> 16);
        stretched[3 * (y * toWidth + x) + channel] = (value + 2) >> 2;
      }
    }
  }
  return stretched;
}

// Two neighbours of each pixel on one side and their weights in 1/2048.
function taps(source, target) {
  return Array.from({ length: target }, (_, index) => {
    const at = Math.fround((index + 0.5) * (source / target) - 0.5);
    const first = Math.floor(at);
    const share = Math.fround(at - first);
    const inside = (place) => Math.min(Math.max(place, 0), source - 1);
    const weights = [Math.fround(1 - share), share].map((value) => roundHalfEven(value * 2048));
    return [inside(first), inside(first + 1), ...weights];
  });
}

function roundHalfEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
