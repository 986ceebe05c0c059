// torch brings an OpenMP runtime (GNU's, LLVM's or Intel's), and all three offer GOMP_parallel. Looking it up in the
// process instead of linking to one keeps us on torch's own threads whichever it is: two runtimes would each keep their
// threads spinning while the other works. Where there is none (macOS), or UMBEL_OPENMP=0 says so, threads of ours wait
// for work, asleep.
#include "team.h"

#include <dlfcn.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace umbel {

namespace {

using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

GompParallel find_gomp_parallel() {
  const char* asked = std::getenv("UMBEL_OPENMP");
  if (asked != nullptr && std::strcmp(asked, "0") == 0) return nullptr;
  return reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
}

GompParallel gomp_parallel() {
  static const GompParallel found = find_gomp_parallel();
  return found;
}

struct Job {
  const std::function<void(int64_t, int)>* work;
  int64_t tasks;
  std::atomic<int64_t> next{0};
  std::atomic<int> workers{0};

  void take_part() {
    int64_t task = next.fetch_add(1, std::memory_order_relaxed);
    if (task >= tasks) return;
    const int worker = workers.fetch_add(1, std::memory_order_relaxed);
    for (; task < tasks; task = next.fetch_add(1, std::memory_order_relaxed)) (*work)(task, worker);
  }
};

void take_part(void* job) { static_cast<Job*>(job)->take_part(); }

// Threads that sleep until there is a job. One job at a time; never destroyed, as threads may outlive main.
class Pool {
 public:
  static Pool& get() {
    static Pool* pool = new Pool;
    return *pool;
  }

  void run(Job& job, int threads) {
    std::lock_guard<std::mutex> alone(one_at_a_time_);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      while (static_cast<int>(threads_.size()) < threads - 1) threads_.emplace_back([this] { serve(); });
      job_ = &job;
      wanted_ = threads - 1;
      round_++;
    }
    wake_.notify_all();
    job.take_part();
    std::unique_lock<std::mutex> lock(mutex_);
    wanted_ = 0;
    done_.wait(lock, [this] { return busy_ == 0; });
    job_ = nullptr;
  }

 private:
  void serve() {
    uint64_t seen = 0;
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return round_ != seen && wanted_ > 0; });
      seen = round_;
      wanted_--;
      busy_++;
      Job* job = job_;
      lock.unlock();
      job->take_part();
      lock.lock();
      if (--busy_ == 0) done_.notify_all();
    }
  }

  std::mutex one_at_a_time_, mutex_;
  std::condition_variable wake_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  uint64_t round_ = 0;
  int wanted_ = 0, busy_ = 0;
};

}  // namespace

const char* team_kind() { return gomp_parallel() != nullptr ? "openmp" : "threads"; }

void share(int64_t tasks, int threads, const std::function<void(int64_t, int)>& work) {
  Job job;
  job.work = &work;
  job.tasks = tasks;
  threads = static_cast<int>(threads < tasks ? threads : tasks);
  if (threads <= 1)
    job.take_part();
  else if (gomp_parallel() != nullptr)
    gomp_parallel()(&take_part, &job, static_cast<unsigned>(threads), 0);
  else
    Pool::get().run(job, threads);
}

}  // namespace umbel
