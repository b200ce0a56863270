// optimum.si::SparseLinear for ONNX Runtime, and the same product for callers without it (tests, tools).
#include <atomic>
#include <cstring>
#include <string>

#include "ort_abi.h"
#include "packed.h"
#include "product.h"

#if defined(_WIN32)
#define SI_EXPORT extern "C" __declspec(dllexport)
#else
#define SI_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace {

using namespace ort;

struct Failure {
  ErrorCode code;
  std::string message;
};

[[noreturn]] void fail(const std::string& message) { throw Failure{kInvalidGraph, "SparseLinear: " + message}; }

// Calls a function of ONNX Runtime and passes its error on.
template <typename Function, typename... Arguments>
void call(const Api* api, Place place, Arguments... arguments) {
  if (Status* status = at<Function>(api, place)(arguments...)) throw status;
}

// Runs `work`; whatever it throws becomes a status.
template <typename Work>
Status* guarded(const Api* api, Work&& work) {
  try {
    work();
    return nullptr;
  } catch (Status* status) {
    return status;
  } catch (const Failure& failure) {
    return at<CreateStatus>(api, kCreateStatus)(failure.code, failure.message.c_str());
  } catch (const std::exception& error) {
    return at<CreateStatus>(api, kCreateStatus)(kFail, error.what());
  }
}

struct Tensor {
  ElementType type = kUndefined;
  std::string shape_text;
  int64_t count = 1;
  int64_t dimensions[8] = {};
  size_t rank = 0;
  const void* data = nullptr;
};

Tensor tensor_of(const Api* api, const Value* value) {
  Tensor tensor;
  TensorInfo* info = nullptr;
  call<GetTensorTypeAndShape>(api, kGetTensorTypeAndShape, value, &info);
  struct Release {
    const Api* api;
    TensorInfo* info;
    ~Release() { at<ReleaseTensorInfo>(api, kReleaseTensorInfo)(info); }
  } release{api, info};
  call<GetTensorElementType>(api, kGetTensorElementType, info, &tensor.type);
  call<GetDimensionsCount>(api, kGetDimensionsCount, info, &tensor.rank);
  if (tensor.rank > 8) fail("an input has more than 8 dimensions");
  call<GetDimensions>(api, kGetDimensions, info, tensor.dimensions, tensor.rank);
  for (size_t place = 0; place < tensor.rank; ++place) tensor.count *= tensor.dimensions[place];
  void* data = nullptr;
  call<GetTensorMutableData>(api, kGetTensorMutableData, const_cast<Value*>(value), &data);
  tensor.data = data;
  return tensor;
}

enum Input : size_t { kX, kValues, kIndices, kStarts, kScales, kBias, kInputs };
constexpr const char* kInputNames[] = {"x", "values", "indices", "starts", "scales", "bias"};

int64_t number_attribute(const Api* api, const KernelInfo* info, const char* name) {
  int64_t value = 0;
  call<GetAttributeInt64>(api, kKernelInfoGetAttributeInt64, info, name, &value);
  return value;
}

std::string text_attribute(const Api* api, const KernelInfo* info, const char* name) {
  char text[32] = {};
  size_t size = sizeof text;
  call<GetAttributeString>(api, kKernelInfoGetAttributeString, info, name, text, &size);
  return text;
}

int choice(const std::string& name, const std::string& given, std::initializer_list<const char*> accepted) {
  int number = 0;
  std::string all;
  for (const char* each : accepted) {
    if (given == each) return number;
    all += (number++ ? ", " : "") + std::string(each);
  }
  fail(name + " is '" + given + "'; this library knows " + all + ". Install the optimum-si that wrote the model.");
}

si::Bytes bytes_of(const Api* api, const KernelInfo* info, Input input) {
  const Value* value = nullptr;
  int constant = 0;
  call<GetConstantInput>(api, kKernelInfoGetConstantInput, info, size_t(input), &constant, &value);
  if (!constant || !value) fail(std::string(kInputNames[input]) + " must be an initializer of the graph");
  const Tensor tensor = tensor_of(api, value);
  if (tensor.type != kUint8) fail(std::string(kInputNames[input]) + " must be a tensor of uint8");
  return {static_cast<const uint8_t*>(tensor.data), size_t(tensor.count)};
}

// One node: its weight, checked once.
struct Kernel {
  const Api* api;
  si::Packed packed;
  si::Isa isa;

  Kernel(const Api* table, const KernelInfo* info) : api(table), packed{}, isa(si::best_isa()) {
    const int64_t version = number_attribute(api, info, "version");
    if (version != si::kVersion)
      fail("the weights have version " + std::to_string(version) + " of the format, and this library reads version " +
           std::to_string(si::kVersion) + ". Install the optimum-si that wrote the model.");
    packed.format = si::Format(choice("format", text_attribute(api, info, "format"), {"2:4", "4:8", "bitmask", "csr"}));
    packed.dtype =
        si::DType(choice("kind", text_attribute(api, info, "kind"), {"fp32", "fp16", "int8", "int4"}));
    packed.rows = number_attribute(api, info, "N");
    packed.columns = number_attribute(api, info, "K");
    packed.group = number_attribute(api, info, "group");
    packed.values = bytes_of(api, info, kValues);
    packed.indices = bytes_of(api, info, kIndices);
    packed.starts = bytes_of(api, info, kStarts);
    packed.scales = bytes_of(api, info, kScales);
    if (const char* wrong = si::problem(packed))
      fail(std::string("the packed weight is damaged: ") + wrong + ". Export the model again.");
  }

  void compute(KernelContext* context) const {
    const Value* input = nullptr;
    call<GetInput>(api, kKernelContextGetInput, context, size_t(kX), &input);
    const Tensor x = tensor_of(api, input);
    if (x.type != kFloat) fail("x must be a tensor of float");
    if (!x.rank || x.dimensions[x.rank - 1] != packed.columns)
      fail("x must end with " + std::to_string(packed.columns) + " features");
    size_t inputs = 0;
    call<GetCount>(api, kKernelContextGetInputCount, context, &inputs);
    const float* bias = nullptr;
    if (inputs > kBias) {
      call<GetInput>(api, kKernelContextGetInput, context, size_t(kBias), &input);
      if (input) {
        const Tensor tensor = tensor_of(api, input);
        if (tensor.type != kFloat || tensor.count != packed.rows) fail("bias must hold a float for each output");
        bias = static_cast<const float*>(tensor.data);
      }
    }
    int64_t shape[8];
    std::memcpy(shape, x.dimensions, sizeof shape);
    shape[x.rank - 1] = packed.rows;
    Value* output = nullptr;
    call<GetOutput>(api, kKernelContextGetOutput, context, size_t(0), static_cast<const int64_t*>(shape), x.rank,
                    &output);
    if (!x.count) return;
    void* y = nullptr;
    call<GetTensorMutableData>(api, kGetTensorMutableData, output, &y);
    si::product(packed, isa, static_cast<const float*>(x.data), x.count / packed.columns, bias,
                static_cast<float*>(y), [&](size_t count, const std::function<void(size_t)>& each) {
                  // Nothing may be thrown on a thread of the pool.
                  struct Work {
                    const std::function<void(size_t)>& each;
                    std::atomic<bool> failed{false};
                  } shared{each};
                  auto work = [](void* data, size_t number) {
                    Work& work = *static_cast<Work*>(data);
                    try {
                      work.each(number);
                    } catch (...) {
                      work.failed = true;
                    }
                  };
                  call<ParallelFor>(api, kKernelContextParallelFor, static_cast<const KernelContext*>(context),
                                    static_cast<void (*)(void*, size_t)>(work), count, size_t(0),
                                    static_cast<void*>(&shared));
                  if (shared.failed) throw Failure{kFail, "SparseLinear: out of memory"};
                });
  }
};


CustomOp make_op() {
  CustomOp op{};
  op.version = kCustomOpVersion;
  op.name = [](const CustomOp*) { return "SparseLinear"; };
  op.provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
  op.input_type = [](const CustomOp*, size_t number) { return number == kX || number == kBias ? kFloat : kUint8; };
  op.input_count = [](const CustomOp*) { return size_t(kInputs); };
  op.output_type = [](const CustomOp*, size_t) { return kFloat; };
  op.output_count = [](const CustomOp*) { return size_t(1); };
  op.input_characteristic = [](const CustomOp*, size_t number) { return number == kBias ? kOptional : kRequired; };
  op.output_characteristic = [](const CustomOp*, size_t) { return kRequired; };
  op.input_memory = [](const CustomOp*, size_t) { return kDefaultMemory; };
  op.variadic_input_least = op.variadic_output_least = [](const CustomOp*) { return 1; };
  op.variadic_input_alike = op.variadic_output_alike = [](const CustomOp*) { return 1; };
  op.start_version = [](const CustomOp*) { return 1; };
  op.end_version = [](const CustomOp*) { return 1; };
  op.create_kernel_v2 = [](const CustomOp*, const Api* api, const KernelInfo* info, void** kernel) -> Status* {
    return guarded(api, [&] { *kernel = new Kernel(api, info); });
  };
  op.compute_v2 = [](void* kernel, KernelContext* context) -> Status* {
    const Kernel& self = *static_cast<const Kernel*>(kernel);
    return guarded(self.api, [&] { self.compute(context); });
  };
  op.destroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return op;
}

}  // namespace

SI_EXPORT Status* RegisterCustomOps(SessionOptions* options, const ApiBase* base) {
  const Api* api = base->get_api(kApiVersion);
  if (!api)
    return at<CreateStatus>(base->get_api(1), kCreateStatus)(
        kFail, "the sparse kernels of optimum-si need ONNX Runtime 1.18 or newer");
  static const CustomOp op = make_op();
  return guarded(api, [&] {
    static const bool right = si::self_test(si::best_isa());
    if (!right) throw Failure{kFail, "the sparse kernels of optimum-si give wrong answers on this machine"};
    static CustomOpDomain* domain = [&] {  // lives as long as the library: sessions keep pointers into it
      CustomOpDomain* made = nullptr;
      call<CreateCustomOpDomain>(api, kCreateCustomOpDomain, "optimum.si", &made);
      using Add = Status* (*)(CustomOpDomain*, const CustomOp*);
      call<Add>(api, kCustomOpDomainAdd, made, &op);
      return made;
    }();
    using AddDomain = Status* (*)(SessionOptions*, CustomOpDomain*);
    call<AddDomain>(api, kAddCustomOpDomain, options, domain);
  });
}

namespace {

si::Packed packed_of(int format, int dtype, const int64_t* shape, const uint8_t* const* parts, const size_t* sizes) {
  return {si::Format(format),   si::DType(dtype),     shape[0],            shape[1], shape[2],
          {parts[0], sizes[0]}, {parts[1], sizes[1]}, {parts[2], sizes[2]}, {parts[3], sizes[3]}};
}

}  // namespace

// What is wrong with a packed weight, or NULL. `shape` is N, K, group; `parts` values, indices, starts, scales.
SI_EXPORT const char* optimum_si_problem(int format, int dtype, const int64_t* shape, const uint8_t* const* parts,
                                         const size_t* sizes) {
  return si::problem(packed_of(format, dtype, shape, parts, sizes));
}

// y = x W^T + bias on the calling thread; 0 where it was done, 1 for a damaged weight, 2 where the machine lacks `isa`.
SI_EXPORT int optimum_si_multiply(int isa, int format, int dtype, const int64_t* shape, const uint8_t* const* parts,
                                  const size_t* sizes, const float* x, int64_t count, const float* bias, float* y) {
  const si::Packed packed = packed_of(format, dtype, shape, parts, sizes);
  if (si::problem(packed)) return 1;
  if (!si::supported(si::Isa(isa))) return 2;
  si::product(packed, si::Isa(isa), x, count, bias, y, [](size_t tasks, const std::function<void(size_t)>& each) {
    for (size_t number = 0; number < tasks; ++number) each(number);
  });
  return 0;
}
