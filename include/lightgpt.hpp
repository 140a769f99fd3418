// LightGPT from C++17: lightgpt.h with owners, exceptions and callables. Header-only.
//
// What a function does, takes and answers stands in lightgpt.h, under the name in its body; the
// constants and the structs that the library fills are those of lightgpt.h. What is different here:
//
// OWNERS. lightgpt::model, team, sampler, session and batch_queue each own a handle, can be moved and not
// copied, and free it in the end. One that was moved from is empty; calls with it throw. Objects
// may go in any order, as in C. Do not destroy one inside a callback that it runs: the library
// refuses to free it, and it stays until the process ends.
//
// ERRORS. A status below 0 is thrown as lightgpt::error, the one class of exceptions here (beside
// std::bad_alloc). Other statuses are answered. Destructors never throw.
//
// CALLBACKS are objects that can be called, such as lambdas; nothing wraps them, and nothing is
// allocated for them. One that answers nothing answers LIGHTGPT_CONTINUE. An exception that leaves
// a callback does not pass through the library: it is kept, the callback answers LIGHTGPT_CANCEL
// for it (where it can answer), and the call that ran it throws it when the library has returned.
// Callbacks that the library keeps are given by reference, and stay the caller's, who lets them
// live as long as the library may call them; or as a std::unique_ptr, which the library destroys
// when it is done.
//
// TEXT is a std::string_view. Names (paths, metadata keys) must not contain a zero byte.
//
// SPDX-License-Identifier: MIT OR Apache-2.0
#ifndef LIGHTGPT_HPP
#define LIGHTGPT_HPP

#include <lightgpt.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace lightgpt {

class model;
class sampler;

// A status below 0, with the message of lightgpt_last_error.
class error : public std::runtime_error {
public:
    error(std::int32_t status, const std::string &message)
        : std::runtime_error(message), status_(status)
    {
    }

    // One of the negative statuses, such as LIGHTGPT_IO.
    std::int32_t status() const noexcept { return status_; }
    // Its name in lightgpt.h.
    const char *name() const noexcept { return lightgpt_status_name(status_); }

private:
    std::int32_t status_;
};

// Values in a row that belong to someone else.
template <class T> class slice {
public:
    slice() noexcept = default;
    slice(T *first, std::size_t size) noexcept : first_(size > 0 ? first : nullptr), size_(size) {}

    T *begin() const noexcept { return first_; }
    T *end() const noexcept { return first_ + size_; }
    T *data() const noexcept { return first_; }
    std::size_t size() const noexcept { return size_; }
    bool empty() const noexcept { return size_ == 0; }
    T &operator[](std::size_t place) const noexcept { return first_[place]; }

private:
    T *first_ = nullptr;
    std::size_t size_ = 0;
};

namespace detail {

// A call of the library in progress on this thread; keeps what its callbacks throw.
class frame {
public:
    frame() noexcept : outer_(innermost()) { innermost() = this; }
    ~frame() { innermost() = outer_; }
    frame(const frame &) = delete;
    frame &operator=(const frame &) = delete;

    // The status of the call, or what it has to throw.
    std::int32_t check(std::int32_t status)
    {
        if (thrown_)
            std::rethrow_exception(thrown_);
        if (status < 0 && lost_)
            std::rethrow_exception(lost_);
        if (status < 0)
            throw error(status, lightgpt_last_error());
        return status;
    }

    // Runs a callback that answers a T; `refusal` if it throws, or one of this call has thrown.
    template <class T, class Callback> static T guard(T refusal, Callback &&callback) noexcept
    {
        frame *call = innermost();
        if (call != nullptr && call->thrown_)
            return refusal;
        try {
            return callback();
        } catch (...) {
            if (call != nullptr)
                call->thrown_ = std::current_exception();
            return refusal;
        }
    }

    // As `guard`, for a callback beside which others of the same call are answered all the same.
    template <class T, class Callback> static T guard_one(T refusal, Callback &&callback) noexcept
    {
        try {
            return callback();
        } catch (...) {
            frame *call = innermost();
            if (call != nullptr && !call->thrown_)
                call->thrown_ = std::current_exception();
            return refusal;
        }
    }

    // As `guard`, for a callback that gives memory: it is asked again, as the library may have made
    // room, and what it has thrown counts only if the call fails.
    template <class Callback> static void *guard_memory(Callback &&callback) noexcept
    {
        try {
            return callback();
        } catch (...) {
            if (frame *call = innermost())
                call->lost_ = std::current_exception();
            return nullptr;
        }
    }

private:
    static frame *&innermost() noexcept
    {
        thread_local frame *call = nullptr;
        return call;
    }

    frame *outer_;
    std::exception_ptr thrown_;
    // Of an allocator.
    std::exception_ptr lost_;
};

// Makes a call of the library; its status, or an exception.
template <class Call> std::int32_t call(Call &&make)
{
    frame here;
    return here.check(make());
}

// As `call`; false if there is no such thing.
template <class Call> bool found(Call &&make)
{
    frame here;
    const std::int32_t status = make();
    return here.check(status == LIGHTGPT_NOT_FOUND ? LIGHTGPT_OK : status) == status;
}

// Fills a string or a vector with a result of unknown size.
template <class Result, class Call> std::int32_t fill(Result &result, Call &&make)
{
    frame here;
    result.resize(result.capacity());
    for (;;) {
        std::size_t needed = 0;
        const std::size_t cap = result.size();
        const std::int32_t status = make(cap > 0 ? result.data() : nullptr, cap, &needed);
        if (status != LIGHTGPT_BUFFER_TOO_SMALL && status < 0)
            result.clear();
        else
            result.resize(needed);
        if (status != LIGHTGPT_BUFFER_TOO_SMALL && (status < 0 || needed <= cap))
            return here.check(status);
    }
}

// A name that ends in a zero byte.
inline std::string terminated(std::string_view name, const char *what)
{
    if (name.find('\0') != std::string_view::npos)
        throw error(LIGHTGPT_INVALID_ARGUMENT, std::string(what) + ": a name with a zero byte");
    return std::string(name);
}

// What a callback answers; nothing is LIGHTGPT_CONTINUE.
template <class F, class... Arguments> std::int32_t answer(F &callback, Arguments &&...arguments)
{
    using Answer = std::invoke_result_t<F &, Arguments...>;
    static_assert(std::is_void_v<Answer> || std::is_same_v<Answer, std::int32_t>,
                  "a callback answers nothing, or LIGHTGPT_CONTINUE and the like");
    if constexpr (std::is_void_v<Answer>) {
        callback(std::forward<Arguments>(arguments)...);
        return LIGHTGPT_CONTINUE;
    } else {
        return callback(std::forward<Arguments>(arguments)...);
    }
}

template <class F> void *address(F &callback) noexcept
{
    return const_cast<void *>(static_cast<const void *>(std::addressof(callback)));
}

template <class F> void destroy(void *callback) noexcept { delete static_cast<F *>(callback); }

// A callback that the library will keep: what is left here when no call has taken it is destroyed.
using owned = std::unique_ptr<void, void (*)(void *)>;

inline owned nothing() noexcept
{
    return owned(nullptr, [](void *) {});
}

// A copy of a struct of the library, which may be older and know less of it.
template <class T> void copy(T &to, const T &from) noexcept
{
    const std::size_t size = from.struct_size < sizeof to ? from.struct_size : sizeof to;
    std::memcpy(&to, &from, size);
    to.struct_size = sizeof to;
}

// Owns a handle of the C interface.
template <class T, class Free> class handle {
public:
    handle() noexcept = default;
    // Takes a handle over.
    explicit handle(T *raw) noexcept : raw_(raw) {}
    handle(handle &&other) noexcept : raw_(other.release()) {}
    handle &operator=(handle &&other) noexcept
    {
        if (this != &other) {
            Free::free(raw_);
            raw_ = other.release();
        }
        return *this;
    }
    ~handle() { Free::free(raw_); }

    // For calls of the C interface; stays owned.
    T *get() const noexcept { return raw_; }
    explicit operator bool() const noexcept { return raw_ != nullptr; }
    // Gives the handle away.
    T *release() noexcept { return std::exchange(raw_, nullptr); }
    // Frees it now, and says if that fails: LIGHTGPT_BUSY in a callback.
    void reset()
    {
        call([&] { return Free::free(raw_); });
        raw_ = nullptr;
    }

private:
    T *raw_ = nullptr;
};

struct free_team {
    static std::int32_t free(lightgpt_team *raw) noexcept { return lightgpt_team_free(raw); }
};
struct free_model {
    static std::int32_t free(lightgpt_model *raw) noexcept { return lightgpt_model_free(raw); }
};
struct free_sampler {
    static std::int32_t free(lightgpt_sampler *raw) noexcept { return lightgpt_sampler_free(raw); }
};
struct free_session {
    static std::int32_t free(lightgpt_session *raw) noexcept { return lightgpt_session_free(raw); }
};
struct free_batch_queue {
    static std::int32_t free(lightgpt_batch_queue *raw) noexcept
    {
        return lightgpt_batch_queue_free(raw);
    }
};

} // namespace detail

// The library.

inline const char *version() noexcept { return lightgpt_version(); }

inline std::uint32_t abi_version() noexcept { return lightgpt_abi_version(); }

// Throws if the library that is running does not fit this header.
inline void abi_check()
{
    detail::call([] { return lightgpt_abi_check(LIGHTGPT_ABI_VERSION); });
}

inline lightgpt_build build_info()
{
    lightgpt_build build = LIGHTGPT_BUILD_INIT;
    detail::call([&] { return lightgpt_build_info(&build); });
    return build;
}

// Threads.

// The work that an executor is asked to run: call it, on any threads, as often as was said.
class body {
public:
    body(lightgpt_body_fn function, void *data) noexcept : function_(function), data_(data) {}
    void operator()() const noexcept { function_(data_); }

private:
    lightgpt_body_fn function_;
    void *data_;
};

struct team_options {
    std::uint32_t threads = 0;
    std::vector<std::uint32_t> cpus;
    std::uint64_t stack_bytes = 0;
    bool pin = false;
    std::optional<std::uint32_t> node;
    std::uint32_t niceness = 0;

    // The host's executor, called with (std::uint32_t bodies, lightgpt::body).
    template <class F> void executor(F &callback)
    {
        parallel_for = [](void *data, std::uint32_t bodies, lightgpt_body_fn run, void *run_data) {
            detail::frame::guard(0, [&] {
                (*static_cast<F *>(data))(bodies, body(run, run_data));
                return 0;
            });
        };
        parallel_for_data = detail::address(callback);
        parallel_for_owner = detail::nothing();
    }
    template <class F> void executor(std::unique_ptr<F> callback)
    {
        executor(*callback);
        parallel_for_owner = detail::owned(callback.release(), detail::destroy<F>);
    }

    lightgpt_parallel_for_fn parallel_for = nullptr;
    void *parallel_for_data = nullptr;
    detail::owned parallel_for_owner = detail::nothing();
};

class team : public detail::handle<lightgpt_team, detail::free_team> {
public:
    using handle::handle;

    team() noexcept = default;
    explicit team(team_options given)
    {
        lightgpt_team_options options = LIGHTGPT_TEAM_OPTIONS_INIT;
        options.threads = given.threads;
        options.cpus = given.cpus.data();
        options.cpus_len = given.cpus.size();
        options.stack_bytes = given.stack_bytes;
        options.flags = (given.pin ? LIGHTGPT_TEAM_PIN : 0) | (given.node ? LIGHTGPT_TEAM_NODE : 0);
        options.node = given.node.value_or(0);
        options.niceness = given.niceness;
        options.parallel_for = given.parallel_for;
        options.parallel_for_data = given.parallel_for_data;
        if (given.parallel_for_owner)
            options.parallel_for_destroy = given.parallel_for_owner.get_deleter();
        lightgpt_team *raw = nullptr;
        detail::call([&] {
            const std::int32_t status = lightgpt_team_new(&options, &raw);
            if (status >= 0) {
                given.parallel_for_owner.release();
                static_cast<handle &>(*this) = handle(raw);
            }
            return status;
        });
    }

    std::uint32_t threads() const
    {
        std::uint32_t threads = 0;
        detail::call([&] { return lightgpt_team_threads(get(), &threads); });
        return threads;
    }
};

// A message of a chat; the texts are the caller's. One without data is none.
struct chat_message {
    std::string role;
    std::string_view content;
    std::string_view fields_json;
};

struct chat {
    std::vector<chat_message> messages;
    // The texts are the caller's. One without data is none.
    std::string_view messages_json;
    std::string_view tools_json;
    std::string_view variables_json;
    // A template in place of the model's, or the name of one of the model's.
    std::string_view template_text;
    std::optional<std::string> template_name;
    bool without_answer = false;
    std::int64_t now = 0;
};

namespace detail {

// Calls `make` with the chat as the library takes it.
template <class Call> auto with_chat(const chat &given, Call &&make)
{
    std::vector<lightgpt_chat_message> messages;
    for (const chat_message &message : given.messages)
        messages.push_back({message.role.c_str(), message.content.data(), message.content.size(),
                            message.fields_json.data(), message.fields_json.size()});
    lightgpt_chat raw = LIGHTGPT_CHAT_INIT;
    raw.flags = given.without_answer ? LIGHTGPT_CHAT_WITHOUT_ANSWER : 0;
    raw.messages = messages.data();
    raw.messages_len = messages.size();
    raw.messages_json = given.messages_json.data();
    raw.messages_json_bytes = given.messages_json.size();
    raw.tools_json = given.tools_json.data();
    raw.tools_json_bytes = given.tools_json.size();
    raw.variables_json = given.variables_json.data();
    raw.variables_json_bytes = given.variables_json.size();
    raw.template_text = given.template_text.data();
    raw.template_text_bytes = given.template_text.size();
    raw.template_name = given.template_name ? given.template_name->c_str() : nullptr;
    raw.now = given.now;
    return make(&raw);
}

} // namespace detail

// Models.

struct open_options {
    // LIGHTGPT_OPEN_ bits.
    std::uint32_t flags = 0;
    std::uint64_t memory_max = 0;
    std::uint64_t prefix_bytes_max = 0;
    std::uint32_t page_tokens = 0;

    // Called with (std::uint64_t done, std::uint64_t total) while the model is opened.
    template <class F> void on_progress(F &callback)
    {
        progress = [](void *data, std::uint64_t done, std::uint64_t total) {
            return detail::frame::guard<std::int32_t>(LIGHTGPT_CANCEL, [&] {
                return detail::answer(*static_cast<F *>(data), done, total);
            });
        };
        progress_data = detail::address(callback);
    }

    // Called with (std::int32_t level, std::string_view line) for as long as the model lives.
    template <class F> void on_log(F &callback)
    {
        log = [](void *data, std::int32_t level, const char *text, std::size_t bytes) {
            detail::frame::guard(0, [&] {
                (*static_cast<F *>(data))(level, std::string_view(text, bytes));
                return 0;
            });
        };
        log_data = detail::address(callback);
        log_owner = detail::nothing();
    }
    template <class F> void on_log(std::unique_ptr<F> callback)
    {
        on_log(*callback);
        log_owner = detail::owned(callback.release(), detail::destroy<F>);
    }

    // Large memory comes from `source`, an object with
    //     void *allocate(std::size_t bytes, std::size_t alignment, std::uint32_t tag)
    //     void release(void *memory, std::size_t bytes, std::size_t alignment, std::uint32_t tag)
    // The former may throw; if the call fails therefore, it throws the same.
    template <class A> void allocate_with(A &source)
    {
        allocator.allocate = [](void *data, std::size_t bytes, std::size_t alignment,
                                std::uint32_t tag) {
            return detail::frame::guard_memory(
                [&] { return static_cast<A *>(data)->allocate(bytes, alignment, tag); });
        };
        allocator.release = [](void *data, void *memory, std::size_t bytes, std::size_t alignment,
                               std::uint32_t tag) {
            detail::frame::guard_one(0, [&] {
                static_cast<A *>(data)->release(memory, bytes, alignment, tag);
                return 0;
            });
        };
        allocator.user_data = detail::address(source);
        allocator_owner = detail::nothing();
    }
    template <class A> void allocate_with(std::unique_ptr<A> source)
    {
        allocate_with(*source);
        allocator_owner = detail::owned(source.release(), detail::destroy<A>);
    }

    lightgpt_progress_fn progress = nullptr;
    void *progress_data = nullptr;
    lightgpt_log_fn log = nullptr;
    void *log_data = nullptr;
    detail::owned log_owner = detail::nothing();
    lightgpt_allocator allocator = LIGHTGPT_ALLOCATOR_INIT;
    detail::owned allocator_owner = detail::nothing();
};

struct session_options {
    // One of LIGHTGPT_KV_.
    std::uint32_t kv_format = LIGHTGPT_KV_AUTO;
    std::uint64_t context = 0;
    std::uint64_t chunk = 0;
    std::uint64_t memory_max = 0;
    bool unshared = false;
    std::uint64_t salt = 0;

    lightgpt_session_options raw() const noexcept
    {
        lightgpt_session_options options = LIGHTGPT_SESSION_OPTIONS_INIT;
        options.kv_format = kv_format;
        options.context = context;
        options.chunk = chunk;
        options.memory_max = memory_max;
        options.flags = unshared ? LIGHTGPT_SESSION_UNSHARED : 0;
        options.salt = salt;
        return options;
    }
};

class model : public detail::handle<lightgpt_model, detail::free_model> {
public:
    using handle::handle;

    static model open(std::string_view path, open_options options = {})
    {
        const std::string name = detail::terminated(path, "path");
        return opened(options, [&](const lightgpt_open_options *raw, lightgpt_model **made) {
            return lightgpt_model_open(name.c_str(), raw, made);
        });
    }

    // Uses the memory in place, which must stay until the model and its sessions have gone; with
    // LIGHTGPT_OPEN_COPY, it is copied.
    static model open_memory(const void *data, std::size_t bytes, open_options options = {})
    {
        return opened(options, [&](const lightgpt_open_options *raw, lightgpt_model **made) {
            return lightgpt_model_open_memory(data, bytes, nullptr, nullptr, raw, made);
        });
    }

    // As above; `owner` is destroyed when the library does not need the memory any more.
    template <class Owner>
    static model open_memory(const void *data, std::size_t bytes, std::unique_ptr<Owner> owner,
                             open_options options = {})
    {
        return opened(options, [&](const lightgpt_open_options *raw, lightgpt_model **made) {
            const std::int32_t status = lightgpt_model_open_memory(
                data, bytes, detail::destroy<Owner>, owner.get(), raw, made);
            if (status >= 0)
                owner.release();
            return status;
        });
    }

    static model open_fd(std::int32_t fd, std::uint64_t offset, std::uint64_t bytes,
                         open_options options = {})
    {
        return opened(options, [&](const lightgpt_open_options *raw, lightgpt_model **made) {
            return lightgpt_model_open_fd(fd, offset, bytes, raw, made);
        });
    }

    // Reads the model by read_at(std::uint64_t offset, void *buffer, std::size_t bytes), during this
    // call only; it answers how many bytes it has read.
    template <class F>
    static model open_reader(F &&read_at, std::uint64_t bytes, open_options options = {})
    {
        using Reader = std::remove_reference_t<F>;
        const auto read = [](void *data, std::uint64_t offset, void *buffer, std::size_t wanted) {
            return detail::frame::guard<std::int64_t>(LIGHTGPT_IO, [&] {
                auto &reader = *static_cast<Reader *>(data);
                return static_cast<std::int64_t>(reader(offset, buffer, wanted));
            });
        };
        return opened(options, [&](const lightgpt_open_options *raw, lightgpt_model **made) {
            return lightgpt_model_open_reader(read, detail::address(read_at), bytes, raw, made);
        });
    }

    lightgpt_model_info describe() const
    {
        lightgpt_model_info info = LIGHTGPT_MODEL_INFO_INIT;
        detail::call([&] { return lightgpt_model_describe(get(), &info); });
        return info;
    }

    lightgpt_memory memory_estimate(const session_options &given = {}) const
    {
        const lightgpt_session_options options = given.raw();
        lightgpt_memory memory = LIGHTGPT_MEMORY_INIT;
        detail::call([&] { return lightgpt_model_memory_estimate(get(), &options, &memory); });
        return memory;
    }

    lightgpt_prefix_statistics prefix_statistics() const
    {
        lightgpt_prefix_statistics statistics = LIGHTGPT_PREFIX_STATISTICS_INIT;
        detail::call([&] { return lightgpt_model_prefix_statistics(get(), &statistics); });
        return statistics;
    }

    lightgpt_tensor_info tensor_describe(std::uint64_t index) const
    {
        lightgpt_tensor_info info = LIGHTGPT_TENSOR_INFO_INIT;
        detail::call([&] { return lightgpt_model_tensor_describe(get(), index, &info); });
        return info;
    }

    std::string metadata_key(std::uint64_t index) const
    {
        std::string key;
        detail::fill(key, [&](char *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_model_metadata_key(get(), index, buf, cap, needed);
        });
        return key;
    }

    // Nothing if there is no such key, here and below.
    std::optional<std::string> metadata_text(std::string_view key) const
    {
        const std::string name = detail::terminated(key, "key");
        std::string text;
        bool found = true;
        detail::fill(text, [&](char *buf, std::size_t cap, std::size_t *needed) {
            const auto status = lightgpt_model_metadata_text(get(), name.c_str(), buf, cap, needed);
            found = status != LIGHTGPT_NOT_FOUND;
            return found ? status : LIGHTGPT_OK;
        });
        return found ? std::optional<std::string>(std::move(text)) : std::nullopt;
    }

    std::optional<std::uint64_t> metadata_u64(std::string_view key) const
    {
        return metadata<std::uint64_t>(key, lightgpt_model_metadata_u64);
    }

    std::optional<std::int64_t> metadata_i64(std::string_view key) const
    {
        return metadata<std::int64_t>(key, lightgpt_model_metadata_i64);
    }

    std::optional<double> metadata_f64(std::string_view key) const
    {
        return metadata<double>(key, lightgpt_model_metadata_f64);
    }

    // flags: LIGHTGPT_TEXT_ bits, here and below.
    std::vector<std::uint32_t> tokenize(std::string_view text, std::uint32_t flags = 0) const
    {
        std::vector<std::uint32_t> tokens;
        detail::fill(tokens, [&](std::uint32_t *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_model_tokenize(get(), text.data(), text.size(), flags, buf, cap,
                                           needed);
        });
        return tokens;
    }

    std::string detokenize(const std::vector<std::uint32_t> &tokens, std::uint32_t flags = 0) const
    {
        std::string text;
        detail::fill(text, [&](char *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_model_detokenize(get(), tokens.data(), tokens.size(), flags, buf, cap,
                                             needed);
        });
        return text;
    }

    // Nothing if there is no such template.
    std::optional<std::string> chat_template(std::optional<std::string_view> of = {}) const
    {
        const std::string name = of ? detail::terminated(*of, "name") : std::string();
        std::string text;
        bool found = true;
        detail::fill(text, [&](char *buf, std::size_t cap, std::size_t *needed) {
            const auto status = lightgpt_model_chat_template(get(), of ? name.c_str() : nullptr,
                                                             buf, cap, needed);
            found = status != LIGHTGPT_NOT_FOUND;
            return found ? status : LIGHTGPT_OK;
        });
        return found ? std::optional<std::string>(std::move(text)) : std::nullopt;
    }

    std::string render(const chat &given) const
    {
        std::string prompt;
        detail::with_chat(given, [&](const lightgpt_chat *raw) {
            return detail::fill(prompt, [&](char *buf, std::size_t cap, std::size_t *needed) {
                return lightgpt_model_chat_render(get(), raw, buf, cap, needed);
            });
        });
        return prompt;
    }

    std::vector<std::uint32_t> tokenize(const chat &given) const
    {
        std::vector<std::uint32_t> tokens;
        detail::with_chat(given, [&](const lightgpt_chat *raw) {
            return detail::fill(
                tokens, [&](std::uint32_t *buf, std::size_t cap, std::size_t *needed) {
                    return lightgpt_model_chat_tokenize(get(), raw, buf, cap, needed);
                });
        });
        return tokens;
    }

    std::string token_text(std::uint32_t token) const
    {
        std::string text;
        detail::fill(text, [&](char *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_model_token_text(get(), token, buf, cap, needed);
        });
        return text;
    }

    // LIGHTGPT_TOKEN_ bits.
    std::uint32_t token_attributes(std::uint32_t token) const
    {
        std::uint32_t attributes = 0;
        detail::call([&] { return lightgpt_model_token_attributes(get(), token, &attributes); });
        return attributes;
    }

    // which: one of LIGHTGPT_SPECIAL_. Nothing if the model has none.
    std::optional<std::uint32_t> token_special(std::uint32_t which) const
    {
        std::uint32_t token = 0;
        const auto ask = [&] { return lightgpt_model_token_special(get(), which, &token); };
        return detail::found(ask) ? std::optional<std::uint32_t>(token) : std::nullopt;
    }

private:
    template <class Open> static model opened(open_options &given, Open &&open)
    {
        lightgpt_open_options options = LIGHTGPT_OPEN_OPTIONS_INIT;
        options.flags = given.flags;
        options.memory_max = given.memory_max;
        options.prefix_bytes_max = given.prefix_bytes_max;
        options.page_tokens = given.page_tokens;
        options.progress = given.progress;
        options.progress_data = given.progress_data;
        options.log = given.log;
        options.log_data = given.log_data;
        if (given.log_owner)
            options.log_destroy = given.log_owner.get_deleter();
        if (given.allocator_owner)
            given.allocator.destroy = given.allocator_owner.get_deleter();
        if (given.allocator.allocate != nullptr)
            options.allocator = &given.allocator;
        model made;
        detail::call([&] {
            lightgpt_model *raw = nullptr;
            const std::int32_t status = open(&options, &raw);
            if (status >= 0) {
                given.log_owner.release();
                given.allocator_owner.release();
                made = model(raw);
            }
            return status;
        });
        return made;
    }

    template <class T, class Get>
    std::optional<T> metadata(std::string_view key, Get get_value) const
    {
        const std::string name = detail::terminated(key, "key");
        T value = 0;
        const auto ask = [&] { return get_value(get(), name.c_str(), &value); };
        return detail::found(ask) ? std::optional<T>(value) : std::nullopt;
    }
};

// Sampling.

// What lightgpt_sampler_options says; what is not set keeps its default.
struct sampler_options {
    std::optional<float> temperature;
    std::optional<std::uint32_t> top_k;
    std::optional<float> top_p;
    std::optional<std::uint64_t> seed;
    std::uint32_t min_keep = 0;
    float min_p = 0;
    float typical_p = 1;
    float top_n_sigma = 0;
    float xtc_probability = 0;
    std::optional<float> xtc_threshold;
    float dynamic_temperature_range = 0;
    std::optional<float> dynamic_temperature_exponent;
    float repetition_penalty = 1;
    float frequency_penalty = 0;
    float presence_penalty = 0;
    std::uint32_t penalty_last = 64;
    float dry_multiplier = 0;
    float dry_base = 1.75F;
    std::optional<std::uint32_t> dry_allowed_length;
    std::uint32_t dry_last = 64;
    std::vector<std::vector<std::uint32_t>> dry_breakers;
    std::uint32_t mirostat = 0;
    std::optional<float> mirostat_tau;
    std::optional<float> mirostat_eta;
    std::optional<float> adaptive_target;
    std::optional<float> adaptive_decay;
    std::vector<lightgpt_logit_bias> logit_biases;
    // LIGHTGPT_STAGE_ numbers; an empty list is the usual order.
    std::vector<std::uint32_t> order;
    // The choice alone.
    bool no_stages = false;
    const model *infill = nullptr;
};

// The tokens that may still be chosen, as a stage sees them. Valid during the callback.
class candidates {
public:
    explicit candidates(lightgpt_candidates &raw) noexcept : raw_(&raw) {}

    // Rising.
    slice<const std::uint32_t> tokens() const noexcept { return {raw_->tokens, size()}; }
    // For the stage to change; minus infinity excludes a token.
    slice<float> logits() const noexcept { return {raw_->logits, size()}; }
    std::size_t size() const noexcept { return static_cast<std::size_t>(raw_->len); }
    slice<const std::uint32_t> history() const noexcept
    {
        return {raw_->history, static_cast<std::size_t>(raw_->history_len)};
    }
    std::uint64_t step() const noexcept { return raw_->step; }

    // The token at `place` is the choice, unless the callback answers otherwise.
    void choose(std::size_t place) noexcept
    {
        raw_->chosen = place;
        chosen_ = true;
    }
    bool is_chosen() const noexcept { return chosen_; }

private:
    lightgpt_candidates *raw_;
    bool chosen_ = false;
};

class sampler : public detail::handle<lightgpt_sampler, detail::free_sampler> {
public:
    using handle::handle;

    sampler() noexcept = default;
    explicit sampler(const sampler_options &given)
    {
        lightgpt_sampler_options options = LIGHTGPT_SAMPLER_OPTIONS_INIT;
        set_numbers(options, given);
        std::vector<lightgpt_tokens> breakers;
        for (const auto &breaker : given.dry_breakers)
            breakers.push_back({breaker.data(), breaker.size()});
        options.dry_breakers = breakers.data();
        options.dry_breakers_len = breakers.size();
        options.logit_biases = given.logit_biases.data();
        options.logit_biases_len = given.logit_biases.size();
        const std::uint32_t none = 0;
        if (given.no_stages) {
            options.order = &none;
        } else if (!given.order.empty()) {
            options.order = given.order.data();
            options.order_len = given.order.size();
        }
        options.infill = given.infill != nullptr ? given.infill->get() : nullptr;
        lightgpt_sampler *raw = nullptr;
        detail::call([&] { return lightgpt_sampler_new(&options, &raw); });
        static_cast<handle &>(*this) = handle(raw);
    }

    std::uint64_t seed()
    {
        std::uint64_t seed = 0;
        detail::call([&] { return lightgpt_sampler_seed(get(), &seed); });
        return seed;
    }

    std::uint32_t sample(const std::vector<float> &logits, std::uint64_t step)
    {
        std::uint32_t token = 0;
        detail::call([&] {
            return lightgpt_sampler_sample(get(), logits.data(), logits.size(), step, &token);
        });
        return token;
    }

    std::uint32_t sample_after(const std::vector<float> &logits,
                               const std::vector<std::uint32_t> &history, std::uint64_t step)
    {
        std::uint32_t token = 0;
        detail::call([&] {
            return lightgpt_sampler_sample_after(get(), logits.data(), logits.size(),
                                                 history.data(), history.size(), step, &token);
        });
        return token;
    }

    void reset_state()
    {
        detail::call([&] { return lightgpt_sampler_reset(get()); });
    }

    lightgpt_chi_square check(const std::vector<float> &logits,
                              const std::vector<std::uint32_t> &history, std::uint64_t draws)
    {
        lightgpt_chi_square result = LIGHTGPT_CHI_SQUARE_INIT;
        detail::call([&] {
            return lightgpt_sampler_check(get(), logits.data(), logits.size(), history.data(),
                                          history.size(), draws, &result);
        });
        return result;
    }

    // Adds a stage, called with (lightgpt::candidates &), in front of the stage `before`. It must
    // live until the sampler and the turns that use it have gone.
    template <class F> void add_stage(std::uint32_t before, F &callback)
    {
        detail::call([&] {
            return lightgpt_sampler_add_stage(get(), before, run_stage<F>,
                                              detail::address(callback), nullptr);
        });
    }
    template <class F> void add_stage(std::uint32_t before, std::unique_ptr<F> callback)
    {
        detail::call([&] {
            const std::int32_t status = lightgpt_sampler_add_stage(
                get(), before, run_stage<F>, callback.get(), detail::destroy<F>);
            if (status >= 0)
                callback.release();
            return status;
        });
    }

private:
    template <class F> static std::int32_t run_stage(void *data, lightgpt_candidates *raw) noexcept
    {
        return detail::frame::guard<std::int32_t>(LIGHTGPT_CANCEL, [&] {
            candidates given(*raw);
            const std::int32_t answer = detail::answer(*static_cast<F *>(data), given);
            const bool chosen = answer == LIGHTGPT_CONTINUE && given.is_chosen();
            return chosen ? LIGHTGPT_CHOOSE : answer;
        });
    }

    static void set_numbers(lightgpt_sampler_options &to, const sampler_options &from) noexcept
    {
        const auto set = [&](auto &member, const auto &value, std::uint32_t bit) {
            if (value) {
                member = *value;
                to.flags |= bit;
            }
        };
        set(to.temperature, from.temperature, LIGHTGPT_SAMPLER_TEMPERATURE);
        set(to.top_k, from.top_k, LIGHTGPT_SAMPLER_TOP_K);
        set(to.top_p, from.top_p, LIGHTGPT_SAMPLER_TOP_P);
        set(to.seed, from.seed, LIGHTGPT_SAMPLER_SEED);
        set(to.xtc_threshold, from.xtc_threshold, LIGHTGPT_SAMPLER_XTC_THRESHOLD);
        set(to.dynamic_temperature_exponent, from.dynamic_temperature_exponent,
            LIGHTGPT_SAMPLER_DYNAMIC_TEMPERATURE_EXPONENT);
        set(to.dry_allowed_length, from.dry_allowed_length, LIGHTGPT_SAMPLER_DRY_ALLOWED_LENGTH);
        set(to.mirostat_tau, from.mirostat_tau, LIGHTGPT_SAMPLER_MIROSTAT_TAU);
        set(to.mirostat_eta, from.mirostat_eta, LIGHTGPT_SAMPLER_MIROSTAT_ETA);
        set(to.adaptive_target, from.adaptive_target, LIGHTGPT_SAMPLER_ADAPTIVE_TARGET);
        set(to.adaptive_decay, from.adaptive_decay, LIGHTGPT_SAMPLER_ADAPTIVE_DECAY);
        to.min_keep = from.min_keep;
        to.min_p = from.min_p;
        to.typical_p = from.typical_p;
        to.top_n_sigma = from.top_n_sigma;
        to.xtc_probability = from.xtc_probability;
        to.dynamic_temperature_range = from.dynamic_temperature_range;
        to.repetition_penalty = from.repetition_penalty;
        to.frequency_penalty = from.frequency_penalty;
        to.presence_penalty = from.presence_penalty;
        to.penalty_last = from.penalty_last;
        to.dry_multiplier = from.dry_multiplier;
        to.dry_base = from.dry_base;
        to.dry_last = from.dry_last;
        to.mirostat = from.mirostat;
    }
};

// How varied sequences of tokens are.
inline lightgpt_diversity diversity(const std::vector<std::vector<std::uint32_t>> &sequences,
                                    std::uint32_t n)
{
    std::vector<lightgpt_tokens> raw;
    for (const auto &sequence : sequences)
        raw.push_back({sequence.data(), sequence.size()});
    lightgpt_diversity result = LIGHTGPT_DIVERSITY_INIT;
    detail::call([&] { return lightgpt_diversity_measure(raw.data(), raw.size(), n, &result); });
    return result;
}

// How varied the words of texts are.
inline lightgpt_diversity diversity(const std::vector<std::string_view> &texts, std::uint32_t n)
{
    std::vector<lightgpt_text> raw;
    for (const auto &text : texts)
        raw.push_back({text.data(), text.size()});
    lightgpt_diversity result = LIGHTGPT_DIVERSITY_INIT;
    detail::call(
        [&] { return lightgpt_diversity_measure_texts(raw.data(), raw.size(), n, &result); });
    return result;
}

// Sessions.

namespace detail {

// What happened in a session, or to a request.
template <class Raw> class happening {
public:
    // One of LIGHTGPT_EVENT_.
    std::uint32_t kind() const noexcept { return raw_.kind; }
    std::uint32_t token() const noexcept { return raw_.token; }
    // One of LIGHTGPT_FINISH_.
    std::uint32_t finish() const noexcept { return raw_.finish; }
    std::uint64_t position() const noexcept { return raw_.position; }
    std::uint64_t done() const noexcept { return raw_.done; }
    std::uint64_t total() const noexcept { return raw_.total; }
    std::string_view text() const noexcept
    {
        const auto bytes = static_cast<std::size_t>(raw_.text_bytes);
        return bytes > 0 ? std::string_view(raw_.text, bytes) : std::string_view();
    }
    double log_probability() const noexcept { return raw_.log_probability; }
    slice<const lightgpt_token_score> top() const noexcept
    {
        return {raw_.top, static_cast<std::size_t>(raw_.top_len)};
    }
    Raw &raw() noexcept { return raw_; }

protected:
    explicit happening(const Raw &raw) noexcept : raw_(raw) {}

    Raw raw_;
};

} // namespace detail

// What happened. Its text and its scores are valid during the callback, or until the next call with
// the session.
class event : public detail::happening<lightgpt_event> {
public:
    event() noexcept : happening(LIGHTGPT_EVENT_INIT) {}
    explicit event(const lightgpt_event &raw) noexcept : event() { detail::copy(raw_, raw); }
};

struct generate_options {
    std::uint64_t tokens_max = 0;
    // Greedy without one.
    lightgpt::sampler *sampler = nullptr;
    std::vector<std::string> stops;
    bool ignore_end = false;
    bool log_probabilities = false;
    std::uint32_t top = 0;
};

namespace detail {

// Makes a call with options for the C interface, which are valid meanwhile.
template <class Call> std::int32_t with(const generate_options &given, Call &&make)
{
    lightgpt_generate_options options = LIGHTGPT_GENERATE_OPTIONS_INIT;
    std::vector<std::string> names;
    std::vector<const char *> stops;
    for (const auto &stop : given.stops)
        names.push_back(terminated(stop, "stops"));
    for (const auto &name : names)
        stops.push_back(name.c_str());
    options.flags = (given.ignore_end ? LIGHTGPT_GENERATE_IGNORE_END : 0)
        | (given.log_probabilities ? LIGHTGPT_GENERATE_LOG_PROBABILITIES : 0);
    options.tokens_max = given.tokens_max;
    options.sampler = given.sampler != nullptr ? given.sampler->get() : nullptr;
    options.stops = stops.data();
    options.stops_len = stops.size();
    options.top_len = given.top;
    return call([&] { return make(&options); });
}

} // namespace detail

struct embed_options {
    std::uint32_t pooling = LIGHTGPT_POOLING_AUTO;
    bool raw = false;

    lightgpt_embed_options raw_options() const noexcept
    {
        lightgpt_embed_options options = LIGHTGPT_EMBED_OPTIONS_INIT;
        options.flags = raw ? LIGHTGPT_EMBED_RAW : 0;
        options.pooling = pooling;
        return options;
    }
};

class session : public detail::handle<lightgpt_session, detail::free_session> {
public:
    using handle::handle;

    session() noexcept = default;
    explicit session(const model &of, const session_options &options = {})
    {
        make(of, nullptr, options);
    }
    session(const model &of, const team &with, const session_options &options = {})
    {
        make(of, &with, options);
    }

    // flags: LIGHTGPT_TEXT_ bits; a new text usually wants LIGHTGPT_TEXT_ADD_SPECIAL. The number of
    // tokens that it made.
    std::uint64_t feed(std::string_view text, std::uint32_t flags = 0)
    {
        std::uint64_t tokens = 0;
        detail::call([&] {
            return lightgpt_session_feed_text(get(), text.data(), text.size(), flags, &tokens);
        });
        return tokens;
    }
    std::uint64_t feed(const chat &given)
    {
        std::uint64_t tokens = 0;
        detail::with_chat(given, [&](const lightgpt_chat *raw) {
            return detail::call(
                [&] { return lightgpt_session_feed_chat(get(), raw, &tokens); });
        });
        return tokens;
    }
    void feed(const std::vector<std::uint32_t> &tokens)
    {
        detail::call(
            [&] { return lightgpt_session_feed_tokens(get(), tokens.data(), tokens.size()); });
    }

    // Whether all is evaluated: always so without a budget.
    bool prefill(std::uint64_t budget_us = 0)
    {
        return detail::call([&] { return lightgpt_session_prefill(get(), budget_us); })
            == LIGHTGPT_DONE;
    }

    // Into a vector that can be used again, or a new one.
    void logits(std::vector<float> &result)
    {
        detail::fill(result, [&](float *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_session_logits(get(), buf, cap, needed);
        });
    }
    std::vector<float> logits()
    {
        std::vector<float> result;
        logits(result);
        return result;
    }

    std::vector<double> score(const std::vector<std::uint32_t> &tokens)
    {
        std::vector<double> result(tokens.size() + 1);
        detail::call([&] {
            return lightgpt_session_score(get(), tokens.data(), tokens.size(), result.data());
        });
        result.pop_back();
        return result;
    }

    // One embedding, or with LIGHTGPT_POOLING_NONE one for each token. The session stays as it is,
    // here and below.
    std::vector<float> embed(std::string_view text, const embed_options &given = {},
                             std::uint32_t flags = LIGHTGPT_TEXT_ADD_SPECIAL)
    {
        const lightgpt_embed_options options = given.raw_options();
        std::vector<float> result;
        detail::fill(result, [&](float *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_session_embed(get(), text.data(), text.size(), flags, &options, buf,
                                          cap, needed);
        });
        return result;
    }
    std::vector<float> embed(const std::vector<std::uint32_t> &tokens,
                             const embed_options &given = {})
    {
        const lightgpt_embed_options options = given.raw_options();
        std::vector<float> result;
        detail::fill(result, [&](float *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_session_embed_tokens(get(), tokens.data(), tokens.size(), &options,
                                                 buf, cap, needed);
        });
        return result;
    }

    // The scores of a text as an answer to a query; models that rank give one.
    std::vector<float> rerank(std::string_view query, std::string_view text)
    {
        std::vector<float> result;
        detail::fill(result, [&](float *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_session_rerank(get(), query.data(), query.size(), text.data(),
                                           text.size(), buf, cap, needed);
        });
        return result;
    }

    std::vector<std::uint32_t> tokens()
    {
        std::vector<std::uint32_t> tokens;
        detail::fill(tokens, [&](std::uint32_t *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_session_tokens(get(), buf, cap, needed);
        });
        return tokens;
    }

    void rewind(std::uint64_t tokens)
    {
        detail::call([&] { return lightgpt_session_rewind(get(), tokens); });
    }

    // Keeps the first tokens, drops those behind them, and moves up the rest.
    void shift(std::uint64_t keep, std::uint64_t dropped)
    {
        detail::call([&] { return lightgpt_session_shift(get(), keep, dropped); });
    }

    // Another session with the same tokens, logits and turn.
    session fork()
    {
        return made([&](lightgpt_session **raw) { return lightgpt_session_fork(get(), raw); });
    }

    // flags: LIGHTGPT_SAVE_ bits.
    void save(std::string_view path, std::uint32_t flags = 0)
    {
        const std::string name(path);
        detail::call([&] { return lightgpt_session_save(get(), name.c_str(), flags); });
    }
    std::vector<std::uint8_t> save_memory(std::uint32_t flags = 0)
    {
        std::vector<std::uint8_t> bytes;
        detail::fill(bytes, [&](std::uint8_t *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_session_save_memory(get(), flags, buf, cap, needed);
        });
        return bytes;
    }

    // A session that goes on where a saved one was; of the options, `context` and
    // `kv_format` of 0 are what that one had, and the others are not saved.
    static session restore(const model &of, std::string_view path,
                           const session_options &options = {}, const team *with = nullptr)
    {
        const std::string name(path);
        const lightgpt_session_options given = options.raw();
        return made([&](lightgpt_session **raw) {
            return lightgpt_session_restore(of.get(), with != nullptr ? with->get() : nullptr,
                                            &given, name.c_str(), raw);
        });
    }
    static session restore(const model &of, const std::vector<std::uint8_t> &bytes,
                           const session_options &options = {}, const team *with = nullptr)
    {
        const lightgpt_session_options given = options.raw();
        return made([&](lightgpt_session **raw) {
            return lightgpt_session_restore_memory(of.get(), with != nullptr ? with->get() : nullptr,
                                                   &given, bytes.data(), bytes.size(), raw);
        });
    }

    // Any thread at any time.
    void cancel() const
    {
        detail::call([&] { return lightgpt_session_cancel(get()); });
    }

    lightgpt_metrics metrics()
    {
        lightgpt_metrics metrics = LIGHTGPT_METRICS_INIT;
        detail::call([&] { return lightgpt_session_metrics(get(), &metrics); });
        return metrics;
    }

    std::string last_error() const
    {
        std::string message;
        detail::fill(message, [&](char *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_session_last_error(get(), buf, cap, needed);
        });
        return message;
    }

    // Evaluates and generates; calls `callback` with (const lightgpt::event &), which may answer
    // LIGHTGPT_STOP or LIGHTGPT_CANCEL. Answers LIGHTGPT_DONE or LIGHTGPT_STOPPED.
    template <class F> std::int32_t generate(const generate_options &given, F &&callback)
    {
        using Callback = std::remove_reference_t<F>;
        const lightgpt_event_fn run = [](void *data, const lightgpt_event *raw) {
            return detail::frame::guard<std::int32_t>(LIGHTGPT_CANCEL, [&] {
                const event happened(*raw);
                return detail::answer(*static_cast<Callback *>(data), happened);
            });
        };
        return detail::with(given, [&](const lightgpt_generate_options *options) {
            return lightgpt_session_generate(get(), options, run, detail::address(callback));
        });
    }
    std::int32_t generate(const generate_options &given = {})
    {
        return detail::with(given, [&](const lightgpt_generate_options *options) {
            return lightgpt_session_generate(get(), options, nullptr, nullptr);
        });
    }

    void begin(const generate_options &given = {})
    {
        detail::with(given, [&](const lightgpt_generate_options *options) {
            return lightgpt_session_begin(get(), options);
        });
    }

    // LIGHTGPT_OK, LIGHTGPT_PENDING or LIGHTGPT_DONE.
    std::int32_t step(std::uint64_t budget_us, event &happened)
    {
        happened = event();
        return detail::call(
            [&] { return lightgpt_session_step(get(), budget_us, &happened.raw()); });
    }

private:
    void make(const model &of, const team *with, const session_options &given)
    {
        const lightgpt_session_options options = given.raw();
        *this = made([&](lightgpt_session **raw) {
            return lightgpt_session_new(of.get(), with != nullptr ? with->get() : nullptr, &options,
                                        raw);
        });
    }

    // What a call that gives a handle makes.
    template <class Call> static session made(Call &&call)
    {
        session result;
        lightgpt_session *raw = nullptr;
        detail::call([&] {
            const std::int32_t status = call(&raw);
            if (status >= 0)
                static_cast<handle &>(result) = handle(raw);
            return status;
        });
        return result;
    }
};

// Batches.

struct batch_queue_options {
    // Whether the queue has a thread of its own; else step() lets it work.
    bool worker = false;
    // One of LIGHTGPT_KV_.
    std::uint32_t kv_format = LIGHTGPT_KV_AUTO;
    std::uint32_t sequences_max = 0;
    std::uint64_t context = 0;
    std::uint64_t chunk = 0;
    std::uint64_t memory_max = 0;
    std::uint64_t requests_max = 0;
    std::uint64_t window_us = 0;
};

// What happened to a request. What it leads to is valid during the callback, or until the next poll.
class batch_event : public detail::happening<lightgpt_batch_event> {
public:
    batch_event() noexcept : happening(LIGHTGPT_BATCH_EVENT_INIT) {}
    explicit batch_event(const lightgpt_batch_event &raw) noexcept : batch_event()
    {
        detail::copy(raw_, raw);
    }

    std::uint64_t request() const noexcept { return raw_.request; }
    // How the request ended: LIGHTGPT_DONE, LIGHTGPT_STOPPED, LIGHTGPT_CANCELLED or an error.
    std::int32_t status() const noexcept { return raw_.status; }
    // Null before the end.
    const lightgpt_batch_timings *timings() const noexcept { return raw_.timings; }
    std::string_view message() const noexcept
    {
        return raw_.message != nullptr ? std::string_view(raw_.message) : std::string_view();
    }
};

struct batch_request {
    // The prompt: text, tokens, or a chat.
    std::string_view text;
    // LIGHTGPT_TEXT_ bits.
    std::uint32_t flags = LIGHTGPT_TEXT_ADD_SPECIAL;
    std::vector<std::uint32_t> tokens;
    std::optional<lightgpt::chat> chat;
    generate_options generate;
    std::int32_t priority = 0;
    std::uint64_t submitter = 0;
    std::uint64_t deadline_us = 0;
    bool unshared = false;
    std::uint64_t salt = 0;

    // Called with (const lightgpt::batch_event &), which may answer LIGHTGPT_STOP or
    // LIGHTGPT_CANCEL; without it, the events are polled. What it throws cancels the request; the
    // step that ran it throws it (the first of several), a queue's own thread drops it.
    template <class F> void on_event(F &callback)
    {
        event = [](void *data, const lightgpt_batch_event *raw) {
            return detail::frame::guard_one<std::int32_t>(LIGHTGPT_CANCEL, [&] {
                const batch_event happened(*raw);
                return detail::answer(*static_cast<F *>(data), happened);
            });
        };
        event_data = detail::address(callback);
        event_owner = detail::nothing();
    }
    template <class F> void on_event(std::unique_ptr<F> callback)
    {
        on_event(*callback);
        event_owner = detail::owned(callback.release(), detail::destroy<F>);
    }

    lightgpt_batch_event_fn event = nullptr;
    void *event_data = nullptr;
    detail::owned event_owner = detail::nothing();
};

// All of it on any thread at any time.
class batch_queue : public detail::handle<lightgpt_batch_queue, detail::free_batch_queue> {
public:
    using handle::handle;

    batch_queue() noexcept = default;
    explicit batch_queue(const model &of, const batch_queue_options &options = {})
    {
        make(of, nullptr, options);
    }
    batch_queue(const model &of, const team &with, const batch_queue_options &options = {})
    {
        make(of, &with, options);
    }

    // The number of the request.
    std::uint64_t submit(batch_request given) const
    {
        lightgpt_batch_request request = LIGHTGPT_BATCH_REQUEST_INIT;
        request.flags = given.flags;
        request.text = given.tokens.empty() && !given.chat ? given.text.data() : nullptr;
        request.text_bytes = given.text.size();
        request.tokens = given.tokens.empty() ? nullptr : given.tokens.data();
        request.tokens_len = given.tokens.size();
        request.priority = given.priority;
        request.submitter = given.submitter;
        request.deadline_us = given.deadline_us;
        request.sharing = given.unshared ? LIGHTGPT_SESSION_UNSHARED : 0;
        request.salt = given.salt;
        request.event = given.event;
        request.user_data = given.event_data;
        if (given.event_owner)
            request.destroy = given.event_owner.get_deleter();
        std::uint64_t id = 0;
        detail::with_chat(given.chat.value_or(lightgpt::chat()), [&](const lightgpt_chat *chat) {
            request.chat = given.chat ? chat : nullptr;
            return detail::with(given.generate, [&](const lightgpt_generate_options *options) {
                request.generate = options;
                const std::int32_t status = lightgpt_batch_queue_submit(get(), &request, &id);
                if (status >= 0)
                    given.event_owner.release();
                return status;
            });
        });
        return id;
    }

    // False if the request is over, or never was.
    bool cancel(std::uint64_t request) const
    {
        return detail::found([&] { return lightgpt_batch_queue_cancel(get(), request); });
    }

    // LIGHTGPT_PENDING or LIGHTGPT_DONE.
    std::int32_t step(std::uint64_t budget_us = 0) const
    {
        return detail::call([&] { return lightgpt_batch_queue_step(get(), budget_us); });
    }

    // LIGHTGPT_OK with an event, LIGHTGPT_PENDING or LIGHTGPT_DONE without one.
    std::int32_t poll(std::uint64_t timeout_us, batch_event &happened) const
    {
        happened = batch_event();
        return detail::call(
            [&] { return lightgpt_batch_queue_poll(get(), timeout_us, &happened.raw()); });
    }

    void pause() const
    {
        detail::call([&] { return lightgpt_batch_queue_pause(get()); });
    }

    void resume() const
    {
        detail::call([&] { return lightgpt_batch_queue_resume(get()); });
    }

    // Whether no request is left.
    bool drain(std::uint64_t timeout_us) const
    {
        return detail::call([&] { return lightgpt_batch_queue_drain(get(), timeout_us); })
            == LIGHTGPT_DONE;
    }

    lightgpt_batch_metrics metrics() const
    {
        lightgpt_batch_metrics metrics = LIGHTGPT_BATCH_METRICS_INIT;
        detail::call([&] { return lightgpt_batch_queue_metrics(get(), &metrics); });
        return metrics;
    }

    // For Prometheus.
    std::string metrics_text() const
    {
        std::string text;
        detail::fill(text, [&](char *buf, std::size_t cap, std::size_t *needed) {
            return lightgpt_batch_queue_metrics_text(get(), buf, cap, needed);
        });
        return text;
    }

private:
    void make(const model &of, const team *with, const batch_queue_options &given)
    {
        lightgpt_batch_queue_options options = LIGHTGPT_BATCH_QUEUE_OPTIONS_INIT;
        options.flags = given.worker ? LIGHTGPT_BATCH_QUEUE_WORKER : 0;
        options.kv_format = given.kv_format;
        options.sequences_max = given.sequences_max;
        options.context = given.context;
        options.chunk = given.chunk;
        options.memory_max = given.memory_max;
        options.requests_max = given.requests_max;
        options.window_us = given.window_us;
        lightgpt_batch_queue *raw = nullptr;
        detail::call([&] {
            const lightgpt_team *threads = with != nullptr ? with->get() : nullptr;
            const auto status = lightgpt_batch_queue_new(of.get(), threads, &options, &raw);
            if (status >= 0)
                static_cast<handle &>(*this) = handle(raw);
            return status;
        });
    }
};

} // namespace lightgpt

#endif // LIGHTGPT_HPP
