// Turns the raw outputs of the network into objects of DeepStream's Gst-nvinfer; `make` builds it.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "nvdsinfer_custom_impl.h"

namespace {

const NvDsInferLayerInfo* find_layer(const std::vector<NvDsInferLayerInfo>& layers,
                                     const char* name) {
  for (const NvDsInferLayerInfo& layer : layers)
    if (layer.layerName && !std::strcmp(layer.layerName, name) && layer.dataType == FLOAT)
      return &layer;
  return nullptr;
}

}  // namespace

// logits: queries x classes, before the sigmoid; boxes: queries x 4, center and size in 0..1.
// Each pair of query and class above its threshold is an object: RT-DETR needs no NMS.
extern "C" bool NvDsInferParseRTDETR(const std::vector<NvDsInferLayerInfo>& layers,
                                     const NvDsInferNetworkInfo& network,
                                     const NvDsInferParseDetectionParams& params,
                                     std::vector<NvDsInferParseObjectInfo>& objects) {
  const NvDsInferLayerInfo* logits = find_layer(layers, "logits");
  const NvDsInferLayerInfo* boxes = find_layer(layers, "boxes");
  if (!logits || !boxes || logits->inferDims.numDims != 2 || boxes->inferDims.numDims != 2 ||
      boxes->inferDims.d[0] != logits->inferDims.d[0] || boxes->inferDims.d[1] != 4)
    return false;
  const unsigned int num_queries = logits->inferDims.d[0];
  const unsigned int num_logits = logits->inferDims.d[1];
  const unsigned int num_classes = std::min(num_logits, params.numClassesConfigured);
  const float width = static_cast<float>(network.width), height = static_cast<float>(network.height);
  for (unsigned int query = 0; query < num_queries; ++query) {
    const float* row = static_cast<const float*>(logits->buffer) + query * num_logits;
    const float* box = static_cast<const float*>(boxes->buffer) + query * 4;
    for (unsigned int label = 0; label < num_classes; ++label) {
      const float score = 1.0F / (1.0F + std::exp(-row[label]));
      if (score < params.perClassPreclusterThreshold[label]) continue;
      const float left = std::clamp((box[0] - box[2] / 2) * width, 0.0F, width);
      const float top = std::clamp((box[1] - box[3] / 2) * height, 0.0F, height);
      const float right = std::clamp((box[0] + box[2] / 2) * width, 0.0F, width);
      const float bottom = std::clamp((box[1] + box[3] / 2) * height, 0.0F, height);
      NvDsInferParseObjectInfo object{};
      object.classId = label;
      object.left = left;
      object.top = top;
      object.width = right - left;
      object.height = bottom - top;
      object.detectionConfidence = score;
      objects.push_back(object);
    }
  }
  return true;
}

CHECK_CUSTOM_PARSE_FUNC_PROTOTYPE(NvDsInferParseRTDETR);
