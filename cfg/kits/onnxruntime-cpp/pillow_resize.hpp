// Bilinear resizing with antialiasing as Pillow does it, for interleaved 8-bit RGB: bit for bit, but
// for tall images, where Pillow 13 begins with the columns and one level of 255 can differ.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

// Resizes along x and returns the image transposed: (height, width) becomes (target, height).
inline std::vector<uint8_t> stretch_rows(const std::vector<uint8_t>& pixels, int width, int height,
                                         int target) {
  constexpr int kBits = 22;  // of the weights' fraction
  const double scale = static_cast<double>(width) / target;
  const double support = std::max(scale, 1.0);  // half the width of the triangle
  std::vector<uint8_t> stretched(static_cast<size_t>(3) * target * height);
  std::vector<double> shares;
  std::vector<int32_t> weights;
  for (int x = 0; x < target; ++x) {
    const double center = (x + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int last = std::min(static_cast<int>(center + support + 0.5), width);
    double sum = 0;
    shares.clear();
    for (int i = first; i < last; ++i) {
      shares.push_back(std::max(0.0, 1.0 - std::abs((i - center + 0.5) * (1 / support))));
      sum += shares.back();
    }
    weights.clear();
    for (double share : shares)
      weights.push_back(static_cast<int32_t>(0.5 + share / sum * (1 << kBits)));
    for (int y = 0; y < height; ++y) {
      const uint8_t* row = &pixels[3 * (static_cast<size_t>(y) * width + first)];
      uint8_t* out = &stretched[3 * (static_cast<size_t>(x) * height + y)];
      for (int channel = 0; channel < 3; ++channel) {
        int32_t value = 1 << (kBits - 1);
        for (size_t i = 0; i < weights.size(); ++i) value += row[3 * i + channel] * weights[i];
        out[channel] = static_cast<uint8_t>(value >> kBits);
      }
    }
  }
  return stretched;
}

inline std::vector<uint8_t> pillow_resize(const std::vector<uint8_t>& pixels, int width, int height,
                                          int to_width, int to_height) {
  return stretch_rows(stretch_rows(pixels, width, height, to_width), height, to_width, to_height);
}
