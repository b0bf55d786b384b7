// The threads of one block on the host: each runs until a barrier or its end, then the next one does.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

namespace host_cuda {

class Block {
 public:
  // Calls thread(i) for every i < count; `moved` hears of every switch to another thread.
  void run(unsigned count, const std::function<void(unsigned)>& thread, const std::function<void(unsigned)>& moved) {
    next_ = 0;
    count_ = count;
    thread_ = &thread;
    moved_ = &moved;
    std::vector<Fiber*> waiting;
    for (size_t i = 0; next_ < count_; ++i) {
      if (i == fibers_.size()) fibers_.push_back(std::make_unique<Fiber>(this));
      if (resume(*fibers_[i])) waiting.push_back(fibers_[i].get());
    }
    while (!waiting.empty()) {  // everyone is at the barrier or done; each time in the opposite order
      std::reverse(waiting.begin(), waiting.end());
      std::vector<Fiber*> again;
      for (Fiber* fiber : waiting) {
        if (resume(*fiber)) again.push_back(fiber);
      }
      waiting = again;
    }
  }

  void barrier() {
    Fiber& fiber = *current_;
    fiber.waits = true;
    swapcontext(&fiber.context, &scheduler_);
    fiber.waits = false;
  }

 private:
  struct Fiber {
    explicit Fiber(Block* block) : stack(new char[stack_size]) {
      getcontext(&context);
      context.uc_stack.ss_sp = stack.get();
      context.uc_stack.ss_size = stack_size;
      context.uc_link = nullptr;
      const auto address = reinterpret_cast<uintptr_t>(block);
      makecontext(&context, reinterpret_cast<void (*)()>(&Block::live), 2, static_cast<unsigned>(address >> 32),
                  static_cast<unsigned>(address));
    }
    static constexpr size_t stack_size = 1 << 16;
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    unsigned thread = 0;
    bool waits = false;
  };

  // A fiber takes one thread after the other, so that threads without a barrier cost no switch.
  static void live(unsigned high, unsigned low) {
    auto& block = *reinterpret_cast<Block*>(static_cast<uintptr_t>(high) << 32 | low);
    for (;;) {
      Fiber& fiber = *block.current_;
      while (block.next_ < block.count_) {
        fiber.thread = block.next_++;
        (*block.moved_)(fiber.thread);
        (*block.thread_)(fiber.thread);
      }
      swapcontext(&fiber.context, &block.scheduler_);
    }
  }

  bool resume(Fiber& fiber) {
    current_ = &fiber;
    (*moved_)(fiber.thread);
    swapcontext(&scheduler_, &fiber.context);
    return fiber.waits;
  }

  ucontext_t scheduler_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  Fiber* current_ = nullptr;
  unsigned next_ = 0, count_ = 0;
  const std::function<void(unsigned)>*thread_ = nullptr, *moved_ = nullptr;
};

}  // namespace host_cuda
