// Matrix products with weights that were packed once: arguments and results of the kernels.
//
// A row of the inputs and of the weights is a run of dwords: one float32, two bfloat16, four int8, or (weights only) eight
// int4. Packed weights are panels of 64 output columns, [panels][dwords][64], so that one step along the inputs reads one
// run of 256 bytes. Each output sums over the inputs in their order and by itself: its bits do not depend on how many rows
// or threads there are.
//
// int4: weights (nibble - zero) * scale, a scale and a zero for each group of inputs. A group is one dword, the scale as a
// float32 whose lowest four bits are the zero, and a dword for each eight inputs: the low nibbles of its four bytes are the
// first four. Rows are int8 with a scale for each group.
#pragma once

#include <cstdint>

namespace umbel {

constexpr int kPanel = 64;

enum class Form : int32_t {
  kBfloat16 = 0,
  kFloat32 = 1,
  kGated = 2,  // silu(first half) * second half, in bfloat16; the columns of both halves lie side by side in each panel
  kGatedFloat32 = 3,
  kAdded = 4,  // bfloat16, added to what is there
  kAddedFloat32 = 5,
};

constexpr bool is_gated(Form form) { return form == Form::kGated || form == Form::kGatedFloat32; }

// Outputs of a panel.
constexpr int64_t width_of(Form form) { return is_gated(form) ? kPanel / 2 : kPanel; }

struct Product {
  const uint8_t* x;  // [rows][dwords], a row each `x_stride` dwords
  const uint32_t* weights;
  void* out;          // [rows][outputs], a row each `out_stride` numbers
  const float* bias;  // [panels][64], or none
  int64_t rows, dwords, outputs, x_stride, out_stride;
  Form form;
  // int8 only: scales of rows and of columns, and -128 times the sum of a column's weights.
  const float* row_scale;
  const float* column_scale;
  const int32_t* correction;
  // int4 only: inputs of a group, and the sum of a row's numbers in each ([rows][groups], as `row_scale` is then).
  int64_t group;
  const int32_t* row_sum;
  // Gated only: [rows][2 * outputs], both halves, what is added to the sums before the gate; or none.
  const void* added;
};

// Rows of bfloat16 (`narrow`) or float32 as round(v / scale), with scale = max |v| / 127 of each group of a row. With `sum`
// these are int8, and their sum in each group is found too; without it 128 is added to them.
struct Rounding {
  const void* x;
  bool narrow;
  uint8_t* out;
  float* scale;
  int32_t* sum;
  int64_t width, group;
};

struct Products {
  // Rows [begin, end) of one panel; `next` is a panel that may be wanted soon, or none.
  void (*multiply)(const Product& p, int64_t panel, const uint32_t* next, int64_t begin, int64_t end);
  // int8 and int4 only: rows [begin, end).
  void (*quantise)(const Rounding& r, int64_t begin, int64_t end);
};

// Null where the processor lacks the instructions; `instruction_set` is that of the other kernels.
const Products* float32_products(const char* instruction_set);
const Products* bfloat16_products(const char* instruction_set);
const Products* int8_products(const char* instruction_set);
const Products* int4_products(const char* instruction_set);

const Products& int8_products_generic();
const Products& int4_products_generic();
#if defined(__x86_64__)
const Products& float32_products_avx512();
const Products& float32_products_avx2();
const Products& bfloat16_products_avx512();
const Products& wide_bfloat16_products_avx512();
const Products& wide_bfloat16_products_avx2();
const Products& int8_products_vnni();
const Products& int8_products_avx2();
// With the matrix unit, where the processor has it and the system lets this process use it.
bool has_amx();
const Products& int8_products_amx();
const Products& int4_products_amx();
const Products& bfloat16_products_amx();
const Products& int4_products_vnni();
const Products& int4_products_avx2();
#endif

}  // namespace umbel
