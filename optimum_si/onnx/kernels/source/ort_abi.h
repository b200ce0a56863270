// The part of ONNX Runtime's C interface that the op needs, declared here so that no header of its own is needed to
// build. The interface only ever grows at its end: a function keeps its place in OrtApi, and a struct its first fields.
// ONNX Runtime 1.18 or newer is needed, which RegisterCustomOps in op.cpp asks for.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ort {

constexpr uint32_t kApiVersion = 18;      // of OrtApi, asked for at load
constexpr uint32_t kCustomOpVersion = 17;  // of CustomOp below

struct Status {};  // thrown as a pointer, so it may not be incomplete
struct SessionOptions;
struct CustomOpDomain;
struct KernelInfo;
struct KernelContext;
struct Value;
struct TensorInfo;  // OrtTensorTypeAndShapeInfo
struct ShapeInferContext;

enum ElementType : int { kUndefined = 0, kFloat = 1, kUint8 = 2 };
enum ErrorCode : int { kFail = 1, kInvalidGraph = 10 };
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum MemoryType : int { kDefaultMemory = 0 };

// A table of function pointers; which function is where is in `Place`.
struct Api {
  void* functions[1];
};

struct ApiBase {
  const Api* (*get_api)(uint32_t version);
  const char* (*version)();
};

enum Place : int {
  kCreateStatus = 0,
  kCreateCustomOpDomain = 26,
  kCustomOpDomainAdd = 27,
  kAddCustomOpDomain = 28,
  kGetTensorMutableData = 51,
  kGetTensorElementType = 60,
  kGetDimensionsCount = 61,
  kGetDimensions = 62,
  kGetTensorTypeAndShape = 65,
  kKernelInfoGetAttributeInt64 = 86,
  kKernelInfoGetAttributeString = 87,
  kKernelContextGetInputCount = 88,
  kKernelContextGetInput = 90,
  kKernelContextGetOutput = 91,
  kReleaseTensorInfo = 99,
  kKernelInfoGetConstantInput = 249,
  kKernelContextParallelFor = 274,
};

template <typename Function>
Function at(const Api* api, Place place) {
  return reinterpret_cast<Function>(api->functions[place]);
}

using CreateStatus = Status* (*)(ErrorCode, const char*);
using CreateCustomOpDomain = Status* (*)(const char*, CustomOpDomain**);
using GetTensorMutableData = Status* (*)(Value*, void**);
using GetTensorElementType = Status* (*)(const TensorInfo*, ElementType*);
using GetDimensionsCount = Status* (*)(const TensorInfo*, size_t*);
using GetDimensions = Status* (*)(const TensorInfo*, int64_t*, size_t);
using GetTensorTypeAndShape = Status* (*)(const Value*, TensorInfo**);
using GetAttributeInt64 = Status* (*)(const KernelInfo*, const char*, int64_t*);
using GetAttributeString = Status* (*)(const KernelInfo*, const char*, char*, size_t*);
using GetCount = Status* (*)(const KernelContext*, size_t*);
using GetInput = Status* (*)(const KernelContext*, size_t, const Value**);
using GetOutput = Status* (*)(KernelContext*, size_t, const int64_t*, size_t, Value**);
using ReleaseTensorInfo = void (*)(TensorInfo*);
using GetConstantInput = Status* (*)(const KernelInfo*, size_t, int*, const Value**);
using ParallelFor = Status* (*)(const KernelContext*, void (*)(void*, size_t), size_t, size_t, void*);

// What an op tells of itself: OrtCustomOp of version 17.
struct CustomOp {
  uint32_t version;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*);
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  ElementType (*input_type)(const CustomOp*, size_t);
  size_t (*input_count)(const CustomOp*);
  ElementType (*output_type)(const CustomOp*, size_t);
  size_t (*output_count)(const CustomOp*);
  void (*compute)(void*, KernelContext*);
  void (*destroy)(void*);
  Characteristic (*input_characteristic)(const CustomOp*, size_t);
  Characteristic (*output_characteristic)(const CustomOp*, size_t);
  MemoryType (*input_memory)(const CustomOp*, size_t);
  int (*variadic_input_least)(const CustomOp*);
  int (*variadic_input_alike)(const CustomOp*);
  int (*variadic_output_least)(const CustomOp*);
  int (*variadic_output_alike)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*compute_v2)(void*, KernelContext*);
  Status* (*infer_shape)(const CustomOp*, ShapeInferContext*);
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
  // Versions 18 and later go on with what may share memory; 17 ends here.
};

}  // namespace ort
