// Detects objects in an image: detect model.onnx bus.jpg [0.25]
// Prints name, score and x1 y1 x2 y2 in pixels, best first.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iterator>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.hpp"
#include "pillow_resize.hpp"

struct Detection {
  int64_t label;
  float score;
  std::array<float, 4> box;  // x1, y1, x2, y2 in pixels of the image
};

class Detector {
 public:
  explicit Detector(const std::filesystem::path& model)
      : session_(env_, model.c_str(), Ort::SessionOptions{}) {}

  // Objects above `conf` in an 8-bit BGR image, as OpenCV reads it, best first.
  std::vector<Detection> detect(const cv::Mat& bgr, float conf) {
    std::vector<float> images = prepare(bgr);
    std::array<int64_t, 2> sizes{bgr.cols, bgr.rows};  // width, height
    const std::array<int64_t, 4> images_shape{1, 3, kHeight, kWidth};
    const std::array<int64_t, 2> sizes_shape{1, 2};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::array<Ort::Value, 2> inputs{
        Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), images_shape.data(),
                                        images_shape.size()),
        Ort::Value::CreateTensor<int64_t>(memory, sizes.data(), sizes.size(), sizes_shape.data(),
                                          sizes_shape.size())};
    const char* input_names[] = {"images", "orig_target_sizes"};
    const char* output_names[] = {"labels", "boxes", "scores"};
    auto outputs = session_.Run(Ort::RunOptions{nullptr}, input_names, inputs.data(), inputs.size(),
                                output_names, std::size(output_names));
    const auto* labels = outputs[0].GetTensorMutableData<int64_t>();
    const auto* boxes = outputs[1].GetTensorMutableData<float>();
    const auto* scores = outputs[2].GetTensorMutableData<float>();
    const size_t rows = outputs[2].GetTensorTypeAndShapeInfo().GetElementCount();
    std::vector<Detection> found;
    for (size_t i = 0; i < rows && scores[i] > conf; ++i) {
      const float* box = boxes + 4 * i;
      found.push_back({labels[i], scores[i], {box[0], box[1], box[2], box[3]}});
    }
    return found;
  }

 private:
  // Stretches to the model's size; planar RGB in 0..1.
  static std::vector<float> prepare(const cv::Mat& bgr) {
    cv::Mat rgb;
    cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
    if (!kAntialias) cv::resize(rgb, rgb, {kWidth, kHeight}, 0, 0, cv::INTER_LINEAR);
    std::vector<uint8_t> pixels(rgb.datastart, rgb.dataend);
    if (kAntialias) pixels = pillow_resize(pixels, rgb.cols, rgb.rows, kWidth, kHeight);
    constexpr size_t kArea = static_cast<size_t>(kWidth) * kHeight;
    std::vector<float> planes(3 * kArea);
    for (size_t i = 0; i < kArea; ++i)
      for (size_t channel = 0; channel < 3; ++channel)
        planes[channel * kArea + i] = static_cast<float>(pixels[3 * i + channel]) / 255.0F;
    return planes;
  }

  Ort::Env env_;
  Ort::Session session_;
};

int main(int argc, char** argv) try {
  if (argc < 3) throw std::invalid_argument("usage: detect model.onnx bus.jpg [0.25]");
  const cv::Mat image = cv::imread(argv[2], cv::IMREAD_COLOR);  // turned as EXIF says
  if (image.empty()) throw std::runtime_error(std::string(argv[2]) + " cannot be read");
  Detector detector(argv[1]);
  const float conf = argc > 3 ? std::strtof(argv[3], nullptr) : 0.25F;
  for (const Detection& one : detector.detect(image, conf)) {
    const auto& [x1, y1, x2, y2] = one.box;
    const bool known = one.label >= 0 && one.label < static_cast<int64_t>(std::size(kNames));
    std::printf("%s %.4f %.2f %.2f %.2f %.2f\n", known ? kNames[one.label] : "?", one.score, x1, y1,
                x2, y2);
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "Error: %s\n", error.what());
  return 1;
}
