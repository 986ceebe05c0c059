// From the nodes, rows and pages of a step to cells, pieces, slots and blocks of rows.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels.h"

namespace umbel {

// The arrays of umbel.ir.step.Step.
struct StepArrays {
  const int64_t *positions, *parent, *start, *end, *row_begin, *row_end, *subtree_end, *pages, *page_begin;
  const bool* fresh;
  int64_t rows, nodes, page_size;
};

// How the work of a step is cut, and for whom.
struct Cut {
  int64_t group, kv_heads, threads, window;
};

// A step laid out: what Layout points to.
class Forest {
 public:
  Forest(const StepArrays& step, const Cut& cut, int64_t scratch_slot);

  Layout layout() const;
  int64_t rows() const { return static_cast<int64_t>(positions_.size()); }
  int32_t blocks() const { return static_cast<int32_t>(block_rows_.size()) - 1; }
  int64_t most_rows() const { return most_rows_; }   // in a block
  int64_t tokens_read() const { return tokens_read_; }  // each run once
  int64_t pairs() const { return pairs_; }              // (row, key it sees)
  const std::vector<int64_t>& writes() const { return writes_; }

 private:
  void find_slots(const StepArrays& step, int64_t scratch_slot);
  void find_cells(const StepArrays& step, int64_t window);
  void add_cell(const StepArrays& step, int64_t node, int64_t first, int64_t window);
  void cut_rows(const Cut& cut);
  void list_cells();

  std::vector<int64_t> positions_, writes_, slot_at_, tree_end_, earliest_;
  std::vector<int32_t> slots_, block_rows_, block_begin_, block_cells_;
  std::vector<Cell> cells_;
  std::vector<Piece> pieces_;
  int64_t tokens_read_ = 0, pairs_ = 0, most_rows_ = 0;
};

}  // namespace umbel
