// A team of threads for one call: OpenMP's where the process has it, so that torch's threads and ours are the same.
#pragma once

#include <cstdint>
#include <functional>

namespace umbel {

// Calls work(task, worker) for each task in [0, tasks), on at most `threads` threads; workers are numbered from 0.
// Tasks are begun in order, each by the next free thread.
void share(int64_t tasks, int threads, const std::function<void(int64_t, int)>& work);

// "openmp": the process' own OpenMP; "threads": a thread pool of ours.
const char* team_kind();

}  // namespace umbel
