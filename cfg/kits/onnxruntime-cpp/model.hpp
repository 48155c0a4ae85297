// What model.onnx was trained for; main.cpp reads it.
#pragma once

constexpr int kWidth = @WIDTH@;
constexpr int kHeight = @HEIGHT@;
constexpr bool kAntialias = @ANTIALIAS@;  // images shrink as in Pillow (true) or OpenCV (false)
constexpr const char* kNames[] = {  // UTF-8
@NAMES_CPP@
};
