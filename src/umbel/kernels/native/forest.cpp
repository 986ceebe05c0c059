// A cell (positions [128 c, 128 (c + 1)) of some sequences) starts in one node of the forest and reaches into all nodes
// below it that begin before the cell's end. Each node's part of a cell is one piece, read once for all rows below:
//
//      node 0:  |cell 0|cell 1|c        pieces of the third cell: what node 0 has of it, for all rows below node 0;
//      node 1:                 ell 2|c  what node 1 has of it, for the rows of node 1; the same for node 2.
//      node 2:                 ell 2|   So one cell here stands for two: one for the rows of each child.
//
// Nodes stand in depth-first order, so cells in the order of (node, position) come in order of position for each row.
#include "forest.h"

#include <algorithm>

namespace umbel {

namespace {
constexpr int64_t kMostQueries = 256;  // of a block: their state then fits the second-level cache beside a cell
// Enough tasks for the threads to end at about the same time, and more where a block still has queries enough for the
// packing of what it reads not to count.
constexpr int64_t kTasksPerThread = 3, kManyTasks = 6, kEnoughQueries = 64;
}  // namespace

Forest::Forest(const StepArrays& step, const Cut& cut, int64_t scratch_slot)
    : positions_(step.positions, step.positions + step.rows) {
  find_slots(step, scratch_slot);
  find_cells(step, cut.window);
  cut_rows(cut);
  list_cells();
}

Layout Forest::layout() const {
  return {cells_.data(),      pieces_.data(),      slots_.data(),      positions_.data(),
          block_rows_.data(), block_begin_.data(), block_cells_.data()};
}

void Forest::find_slots(const StepArrays& s, int64_t scratch_slot) {
  slot_at_.resize(s.nodes + 1);
  writes_.resize(s.rows);
  int64_t total = 0;
  for (int64_t n = 0; n < s.nodes; n++) {
    slot_at_[n] = total;
    total += s.end[n] - s.start[n];
  }
  slots_.resize(total);
  for (int64_t n = 0; n < s.nodes; n++) {
    const int64_t length = s.end[n] - s.start[n];
    int32_t* to = slots_.data() + slot_at_[n];
    const int64_t* page = s.pages + s.page_begin[n];
    for (int64_t at = 0; at < length; at += s.page_size, page++) {
      const int64_t base = *page * s.page_size, stop = std::min(s.page_size, length - at);
      for (int64_t i = 0; i < stop; i++) to[at + i] = static_cast<int32_t>(base + i);
    }
    const int64_t own = s.row_end[n] - s.row_begin[n];
    for (int64_t i = 0; i < own; i++) {
      const int64_t row = s.row_begin[n] + i;
      writes_[row] = s.fresh[row] ? to[length - own + i] : scratch_slot;
    }
  }
}

void Forest::find_cells(const StepArrays& s, int64_t window) {
  tree_end_.resize(s.nodes);  // end of the range of nodes below, the node itself included
  earliest_.resize(s.nodes);  // position of the first row to stand in a node or below it
  for (int64_t n = 0; n < s.nodes; n++) {
    tree_end_[n] = n + 1;
    earliest_[n] = s.row_begin[n] < s.row_end[n] ? s.positions[s.row_begin[n]] : INT64_MAX;
  }
  for (int64_t n = s.nodes - 1; n >= 0; n--) {
    if (s.parent[n] < 0) continue;
    tree_end_[s.parent[n]] = std::max(tree_end_[s.parent[n]], tree_end_[n]);
    earliest_[s.parent[n]] = std::min(earliest_[s.parent[n]], earliest_[n]);
  }
  for (int64_t n = 0; n < s.nodes; n++)
    for (int64_t first = (s.start[n] + kGrid - 1) / kGrid * kGrid; first < s.end[n]; first += kGrid)
      add_cell(s, n, first, window);
  for (int64_t row = 0; row < s.rows; row++) {
    const int64_t seen = s.positions[row] + 1;
    pairs_ += window > 0 ? std::min(seen, window) : seen;
  }
}

void Forest::add_cell(const StepArrays& s, int64_t node, int64_t first, int64_t window) {
  const int64_t stop = first + kGrid;
  const int64_t own_from = s.end[node] - (s.row_end[node] - s.row_begin[node]);
  Cell cell;
  cell.first = first;
  cell.row_begin = static_cast<int32_t>(s.row_begin[node] + std::max<int64_t>(0, first - own_from));
  cell.row_end = static_cast<int32_t>(s.subtree_end[node]);
  cell.piece_begin = static_cast<int32_t>(pieces_.size());
  if (cell.row_begin >= cell.row_end) return;
  // No row here sees what lies before `seen_from`.
  const int64_t earliest = std::max(earliest_[node], first);
  const int64_t seen_from = window > 0 ? std::max(first, earliest + 1 - window) : first;
  if (seen_from >= stop) return;
  for (int64_t n = node; n < tree_end_[node];) {
    if (s.start[n] >= stop) {
      n = tree_end_[n];
      continue;
    }
    const int64_t begin = std::max(first, s.start[n]), end = std::min(stop, s.end[n]);
    const int32_t rows = n == node ? cell.row_begin : static_cast<int32_t>(s.row_begin[n]);
    pieces_.push_back({rows, static_cast<int32_t>(s.subtree_end[n]), static_cast<int32_t>(begin - first),
                       static_cast<int32_t>(end - first), slot_at_[n] + begin - s.start[n]});
    tokens_read_ += std::max<int64_t>(0, end - std::max(begin, seen_from));
    n = s.end[n] >= stop ? tree_end_[n] : n + 1;
  }
  cell.piece_end = static_cast<int32_t>(pieces_.size());
  cells_.push_back(cell);
}

// Blocks of consecutive rows with about as many pairs each.
void Forest::cut_rows(const Cut& cut) {
  const int64_t rows = this->rows();
  const int64_t for_size = (rows * cut.group + kMostQueries - 1) / kMostQueries;
  auto for_threads = [&](int64_t tasks) {
    return cut.threads <= 1 ? 1 : (tasks * cut.threads + cut.kv_heads - 1) / cut.kv_heads;
  };
  const int64_t large = std::min(for_threads(kManyTasks), rows * cut.group / kEnoughQueries);
  const int64_t blocks =
      std::max<int64_t>(1, std::min(rows, std::max({for_size, for_threads(kTasksPerThread), large})));
  const int64_t most = std::max<int64_t>(1, kMostQueries / cut.group);
  block_rows_.push_back(0);
  int64_t done = 0, total = 0;
  for (int64_t row = 0; row < rows; row++) total += positions_[row] + kGrid;
  for (int64_t row = 0; row < rows; row++) {
    const int64_t begun = block_rows_.back();
    if (row - begun >= most ||
        (row > begun && done * blocks >= total * static_cast<int64_t>(block_rows_.size())))
      block_rows_.push_back(static_cast<int32_t>(row));
    done += positions_[row] + kGrid;
  }
  block_rows_.push_back(static_cast<int32_t>(rows));
  for (size_t i = 1; i < block_rows_.size(); i++)
    most_rows_ = std::max<int64_t>(most_rows_, block_rows_[i] - block_rows_[i - 1]);
}

void Forest::list_cells() {
  const int32_t n = blocks();
  std::vector<int32_t> from(cells_.size()), to(cells_.size());
  block_begin_.assign(n + 1, 0);
  for (size_t c = 0; c < cells_.size(); c++) {
    auto block_of = [&](int32_t row) {
      return static_cast<int32_t>(std::upper_bound(block_rows_.begin(), block_rows_.end(), row) - block_rows_.begin()) - 1;
    };
    from[c] = block_of(cells_[c].row_begin);
    to[c] = block_of(cells_[c].row_end - 1) + 1;
    for (int32_t b = from[c]; b < to[c]; b++) block_begin_[b + 1]++;
  }
  for (int32_t b = 0; b < n; b++) block_begin_[b + 1] += block_begin_[b];
  block_cells_.resize(block_begin_[n]);
  std::vector<int32_t> at(block_begin_.begin(), block_begin_.end() - 1);
  for (size_t c = 0; c < cells_.size(); c++)
    for (int32_t b = from[c]; b < to[c]; b++) block_cells_[at[b]++] = static_cast<int32_t>(c);
}

}  // namespace umbel
