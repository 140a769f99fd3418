// The C++ wrapper: ownership, exceptions around C frames, and that every part answers.
#include <lightgpt.hpp>

#include <cfenv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::printf("%s:%d: %s\n", __FILE__, __LINE__, #condition);                            \
            std::exit(1);                                                                          \
        }                                                                                          \
    } while (false)

namespace {

struct trouble {
    int number;
};

template <class F> std::int32_t status_of(F &&call)
{
    try {
        call();
    } catch (const lightgpt::error &e) {
        EXPECT(e.what()[0] != '\0' && e.name()[0] == 'L');
        return e.status();
    }
    return LIGHTGPT_OK;
}

template <class F> int trouble_of(F &&call)
{
    try {
        call();
    } catch (const trouble &thrown) {
        return thrown.number;
    }
    return 0;
}

static_assert(!std::is_copy_constructible_v<lightgpt::model>);
static_assert(!std::is_copy_assignable_v<lightgpt::session>);
static_assert(std::is_nothrow_move_constructible_v<lightgpt::sampler>);
static_assert(std::is_nothrow_move_assignable_v<lightgpt::team>);
static_assert(std::is_nothrow_destructible_v<lightgpt::session>);

void owners(const char *path)
{
    lightgpt::model empty;
    EXPECT(!empty);
    EXPECT(status_of([&] { empty.describe(); }) == LIGHTGPT_INVALID_HANDLE);
    lightgpt::model model = lightgpt::model::open(path);
    lightgpt_model *raw = model.get();
    lightgpt::model moved = std::move(model);
    EXPECT(!model && moved.get() == raw);
    moved = lightgpt::model::open(path);
    lightgpt_model_info info = LIGHTGPT_MODEL_INFO_INIT;
    EXPECT(lightgpt_model_describe(raw, &info) == LIGHTGPT_INVALID_HANDLE);
    EXPECT(moved.describe().vocab == 4096);
    lightgpt::model adopted(moved.release());
    EXPECT(!moved && adopted.describe().layers == 4);
    adopted.reset();
    EXPECT(!adopted);
    EXPECT(status_of([] { lightgpt::model::open("no/such/file"); }) == LIGHTGPT_IO);
    EXPECT(status_of([] { lightgpt::model::open(std::string_view("a\0b", 3)); })
           == LIGHTGPT_INVALID_ARGUMENT);
}

void opening(const char *path)
{
    lightgpt::open_options options;
    int calls = 0;
    auto progress = [&](std::uint64_t, std::uint64_t) {
        calls++;
        throw trouble{7};
    };
    options.flags = LIGHTGPT_OPEN_COPY;
    options.on_progress(progress);
    EXPECT(trouble_of([&] { lightgpt::model::open(path, std::move(options)); }) == 7);
    EXPECT(calls == 1);

    // A callback that the library owns goes with the model, or with a call that fails.
    struct log_lines {
        std::shared_ptr<std::string> lines;
        void operator()(std::int32_t level, std::string_view line)
        {
            EXPECT(level == LIGHTGPT_LOG_INFO);
            lines->append(line);
        }
    };
    auto lines = std::make_shared<std::string>();
    const auto with_log = [&] {
        lightgpt::open_options logged;
        logged.on_log(std::make_unique<log_lines>(log_lines{lines}));
        return logged;
    };
    EXPECT(status_of([&] { lightgpt::model::open("no/such/file", with_log()); }) == LIGHTGPT_IO);
    EXPECT(lines.use_count() == 1);
    {
        lightgpt::model model = lightgpt::model::open(path, with_log());
        EXPECT(lines.use_count() == 2 && !lines->empty());
    }
    EXPECT(lines.use_count() == 1);

    // One that throws does not stop the call, which throws in its end.
    auto loud = [](std::int32_t, std::string_view) { throw trouble{8}; };
    lightgpt::open_options thrown;
    thrown.on_log(loud);
    EXPECT(trouble_of([&] { lightgpt::model::open(path, std::move(thrown)); }) == 8);

    std::ifstream file(path, std::ios::binary);
    auto bytes = std::make_unique<std::string>(std::istreambuf_iterator<char>(file),
                                               std::istreambuf_iterator<char>());
    const char *data = bytes->data();
    const std::size_t size = bytes->size();
    lightgpt::open_options look;
    look.flags = LIGHTGPT_OPEN_COPY | LIGHTGPT_OPEN_INSPECT;
    EXPECT(lightgpt::model::open_memory(data, size, std::move(look)).describe().tensors > 30);
    lightgpt::model model = lightgpt::model::open_memory(data, size, std::move(bytes));
    EXPECT(model.describe().layers == 4 && bytes == nullptr);
    EXPECT(status_of([] { lightgpt::model::open_fd(-1, 0, 1); }) < 0);
}

// Memory and files of the host's, which may throw.
struct memory {
    std::shared_ptr<std::size_t> held = std::make_shared<std::size_t>(0);
    std::size_t most = static_cast<std::size_t>(-1);

    void *allocate(std::size_t bytes, std::size_t alignment, std::uint32_t tag)
    {
        EXPECT(tag <= LIGHTGPT_MEMORY_MISC);
        if (*held + bytes > most)
            throw trouble{9};
        *held += bytes;
        return ::operator new(bytes, std::align_val_t(alignment));
    }
    void release(void *given, std::size_t bytes, std::size_t alignment, std::uint32_t)
    {
        *held -= bytes;
        ::operator delete(given, std::align_val_t(alignment));
    }
};

void reading(const char *path)
{
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    const auto size = static_cast<std::uint64_t>(file.tellg());
    const auto read = [&](std::uint64_t offset, void *buffer, std::size_t bytes) {
        file.seekg(static_cast<std::streamoff>(offset));
        const std::size_t part = bytes > 1000 ? 1000 : bytes;
        file.read(static_cast<char *>(buffer), static_cast<std::streamsize>(part));
        return part;
    };
    auto source = std::make_unique<memory>();
    const auto held = source->held;
    lightgpt::open_options options;
    options.allocate_with(std::move(source));
    {
        const auto model = lightgpt::model::open_reader(read, size, std::move(options));
        EXPECT(*held > 4000000 && held.use_count() == 2);
        lightgpt::batch_queue queue(model);
        EXPECT(queue.metrics().memory_weights > 4000000);
        EXPECT(queue.metrics_text().find("\nlightgpt_batch_occupancy_ratio 0\n")
               != std::string::npos);
    }
    EXPECT(*held == 0 && held.use_count() == 1);

    memory little;
    little.most = 1000000;
    lightgpt::open_options tight;
    tight.allocate_with(little);
    EXPECT(trouble_of([&] { lightgpt::model::open_reader(read, size, std::move(tight)); }) == 9);
    EXPECT(*little.held == 0);
    const auto broken = [&](std::uint64_t offset, void *buffer, std::size_t bytes) {
        if (offset > 1000000)
            throw trouble{10};
        return read(offset, buffer, bytes);
    };
    EXPECT(trouble_of([&] { lightgpt::model::open_reader(broken, size); }) == 10);
    EXPECT(status_of([&] { lightgpt::model::open_reader(read, 1); }) == LIGHTGPT_FORMAT);
}

void describing(const lightgpt::model &model)
{
    EXPECT(lightgpt::build_info().abi_version == lightgpt::abi_version());
    EXPECT(lightgpt::version() == std::string(LIGHTGPT_VERSION));
    lightgpt::abi_check();
    const lightgpt_model_info info = model.describe();
    EXPECT(model.memory_estimate().kv > 0);
    EXPECT(!model.metadata_key(0).empty());
    EXPECT(status_of([&] { model.metadata_key(info.metadata_keys); }) == LIGHTGPT_NOT_FOUND);
    EXPECT(model.metadata_text("general.architecture") == "llama");
    EXPECT(!model.metadata_text("no.such.key"));
    EXPECT(model.metadata_u64("llama.block_count") == 4U);
    EXPECT(model.metadata_i64("llama.block_count") == 4);
    EXPECT(model.metadata_f64("llama.attention.layer_norm_rms_epsilon").value_or(0) > 0);
    EXPECT(!model.metadata_u64("no.such.key"));
    EXPECT(model.tensor_describe(0).bytes > 0);
    const auto tokens = model.tokenize("Once upon a time", LIGHTGPT_TEXT_ADD_SPECIAL);
    EXPECT(tokens.size() > 2 && tokens[0] == model.token_special(LIGHTGPT_SPECIAL_BOS));
    EXPECT(model.detokenize(tokens, LIGHTGPT_TEXT_START) == "Once upon a time");
    EXPECT(model.tokenize("").empty() && model.detokenize({}).empty());
    EXPECT(model.token_text(2) == "</s>");
    EXPECT((model.token_attributes(2) & LIGHTGPT_TOKEN_END) != 0);
}

void sampling(const lightgpt::model &model)
{
    lightgpt::sampler_options options;
    options.temperature = 1.0F;
    options.seed = 5;
    options.no_stages = true;
    options.infill = &model;
    lightgpt::sampler plain(options);
    EXPECT(plain.seed() == 5);
    const std::vector<float> logits{1, 2, 3, 4};
    const lightgpt_chi_square result = plain.check(logits, {}, 20000);
    EXPECT(result.degrees == 3 && result.p_value > 1e-4);
    EXPECT(plain.sample(logits, 9) == plain.sample_after(logits, {}, 9));
    plain.reset_state();

    // A bias, a penalty and an order that leave one token.
    lightgpt::sampler_options biased;
    biased.temperature = 0.0F;
    biased.logit_biases = {{3, -INFINITY}};
    biased.presence_penalty = 5;
    biased.dry_breakers = {{1}, {2, 3}};
    biased.order = {LIGHTGPT_STAGE_PENALTIES, LIGHTGPT_STAGE_LOGIT_BIAS,
                    LIGHTGPT_STAGE_TEMPERATURE};
    lightgpt::sampler strict(biased);
    EXPECT(strict.sample(logits, 0) == 2);
    EXPECT(strict.sample_after(logits, {2}, 1) == 1);
    biased.dry_breakers.emplace_back();
    EXPECT(status_of([&] { lightgpt::sampler refused(biased); }) == LIGHTGPT_INVALID_ARGUMENT);

    // Stages: look, choose, throw.
    lightgpt::sampler own(lightgpt::sampler_options{});
    const auto second = [](lightgpt::candidates &c) {
        EXPECT(c.size() == 4 && c.tokens()[1] == 1 && c.logits()[3] == 4 && c.step() == 11);
        EXPECT(c.history().size() == 1 && c.history()[0] == 3);
        EXPECT(std::fegetround() == FE_UPWARD);
        c.choose(1);
    };
    own.add_stage(LIGHTGPT_STAGE_TOP_K, second);
    // A stage runs in the host's float environment, whatever that is.
    std::fesetround(FE_UPWARD);
    EXPECT(own.sample_after(logits, {3}, 11) == 1);
    EXPECT(std::fegetround() == FE_UPWARD);
    std::fesetround(FE_TONEAREST);
    auto count = std::make_shared<int>(0);
    auto angry = [count](lightgpt::candidates &) -> std::int32_t { throw trouble{++*count}; };
    EXPECT(status_of([&] {
               own.add_stage(99, std::make_unique<decltype(angry)>(angry));
           }) == LIGHTGPT_INVALID_ARGUMENT);
    EXPECT(count.use_count() == 2);
    own.add_stage(LIGHTGPT_STAGE_LOGIT_BIAS, std::make_unique<decltype(angry)>(angry));
    EXPECT(count.use_count() == 3);
    EXPECT(trouble_of([&] { own.sample_after(logits, {3}, 11); }) == 1);
    lightgpt::session session(model);
    session.feed("Once upon", LIGHTGPT_TEXT_ADD_SPECIAL);
    lightgpt::generate_options generate;
    generate.sampler = &own;
    EXPECT(trouble_of([&] { session.generate(generate); }) == 2);
    EXPECT(session.tokens().empty());
    own.reset();
    EXPECT(count.use_count() == 2);

    EXPECT(lightgpt::diversity({{1, 2, 1, 2}}, 1).distinct == 0.5);
    const std::vector<std::string_view> texts{"a b a b", "a b a b"};
    EXPECT(lightgpt::diversity(texts, 2).self_bleu > 0.99);
}

void generating(const lightgpt::model &model)
{
    const auto feed = [](lightgpt::session &session) {
        return session.feed("Once upon a time", LIGHTGPT_TEXT_ADD_SPECIAL);
    };
    lightgpt::team_options threads;
    threads.threads = 1;
    lightgpt::team team(std::move(threads));
    EXPECT(team.threads() == 1);
    lightgpt::session session(model, team);
    const std::uint64_t fed = feed(session);
    EXPECT(session.prefill());

    // An exception takes the turn back, and the session goes on.
    lightgpt::generate_options options;
    options.tokens_max = 12;
    options.log_probabilities = true;
    options.top = 3;
    int seen = 0;
    const auto fail = [&](const lightgpt::event &event) {
        if (event.kind() == LIGHTGPT_EVENT_TOKEN && ++seen == 3)
            throw trouble{9};
    };
    EXPECT(trouble_of([&] { session.generate(options, fail); }) == 9 && seen == 3);
    EXPECT(session.tokens().empty());

    feed(session);
    std::string text;
    const auto listen = [&](const lightgpt::event &event) {
        text += event.text();
        if (event.kind() == LIGHTGPT_EVENT_TOKEN)
            EXPECT(event.top().size() == 3
                   && event.log_probability() <= event.top()[0].log_probability);
    };
    EXPECT(session.generate(options, listen) == LIGHTGPT_DONE);
    EXPECT(session.tokens().size() == fed + 12 && session.metrics().generated_tokens >= 12);

    // In steps: the same text.
    session.rewind(0);
    feed(session);
    session.begin(options);
    EXPECT(status_of([&] { session.begin(options); }) == LIGHTGPT_BUSY);
    EXPECT(!session.last_error().empty());
    std::string again;
    lightgpt::event event;
    while (session.step(0, event) != LIGHTGPT_DONE)
        again += event.text();
    again += event.text();
    EXPECT(event.finish() == LIGHTGPT_FINISH_LENGTH && text == again && !text.empty());

    session.rewind(0);
    feed(session);
    EXPECT(session.generate(options, [](const lightgpt::event &) -> std::int32_t {
        return LIGHTGPT_STOP;
    }) == LIGHTGPT_STOPPED);
    session.rewind(fed);
    options.stops = {text.substr(0, 4)};
    EXPECT(session.generate(options) == LIGHTGPT_DONE);
    session.rewind(fed);
    EXPECT(session.score({5, 6}).size() == 2);
    const auto tokens = model.tokenize("One day", LIGHTGPT_TEXT_ADD_SPECIAL);
    const auto unit = session.embed("One day");
    EXPECT(unit.size() == 256 && unit == session.embed(tokens));
    lightgpt::embed_options rows;
    rows.pooling = LIGHTGPT_POOLING_NONE;
    rows.raw = true;
    EXPECT(session.embed(tokens, rows).size() == tokens.size() * 256);
    EXPECT(status_of([&] { session.rerank("a", "b"); }) == LIGHTGPT_UNSUPPORTED);
    session.feed(std::vector<std::uint32_t>{7});
    session.cancel();
    EXPECT(status_of([&] { session.prefill(); }) == LIGHTGPT_CANCELLED);
}

// Calls inside callbacks have exceptions of their own.
void nesting(const lightgpt::model &model)
{
    lightgpt::session outer(model);
    lightgpt::session inner(model);
    outer.feed("The king", LIGHTGPT_TEXT_ADD_SPECIAL);
    lightgpt::generate_options options;
    options.tokens_max = 3;
    int caught = 0;
    outer.generate(options, [&](const lightgpt::event &) {
        inner.feed("The dog", LIGHTGPT_TEXT_ADD_SPECIAL);
        caught += trouble_of([&] {
            inner.generate(options, [](const lightgpt::event &) { throw trouble{1}; });
        });
        EXPECT(status_of([&] { outer.rewind(0); }) == LIGHTGPT_BUSY);
    });
    EXPECT(caught >= 4);
}

// An executor of the host's, which throws; the library owns it.
void executing(const lightgpt::model &model)
{
    auto alive = std::make_shared<int>(0);
    struct pool {
        std::shared_ptr<int> calls;
        void operator()(std::uint32_t, lightgpt::body run)
        {
            std::thread other(run);
            run();
            other.join();
            if (++*calls == 5)
                throw trouble{5};
        }
    };
    lightgpt::team_options options;
    options.threads = 2;
    options.executor(std::make_unique<pool>(pool{alive}));
    lightgpt::team team(std::move(options));
    {
        lightgpt::session session(model, team);
        session.feed("Once upon a time", LIGHTGPT_TEXT_ADD_SPECIAL);
        EXPECT(trouble_of([&] { session.prefill(); }) == 5 && *alive == 5);
        EXPECT(session.prefill() && session.logits().size() == 4096);
        EXPECT(alive.use_count() == 2);
    }
    team.reset();
    EXPECT(alive.use_count() == 1);
}

// A batch queue: callbacks by reference and owned, one that throws, polling, a worker.
void batching(const lightgpt::model &model)
{
    lightgpt::session session(model);
    session.feed("Once upon a time", LIGHTGPT_TEXT_ADD_SPECIAL);
    std::string alone;
    lightgpt::generate_options generate;
    generate.tokens_max = 10;
    generate.stops = {"no such text"};
    session.generate(generate, [&](const lightgpt::event &e) { alone += e.text(); });

    const auto request = [&] {
        lightgpt::batch_request made;
        made.text = "Once upon a time";
        made.generate = generate;
        return made;
    };
    lightgpt::batch_queue queue(model);
    std::string text;
    int ends = 0;
    auto listen = [&](const lightgpt::batch_event &e) {
        text += e.text();
        ends += e.timings() != nullptr && e.status() == LIGHTGPT_DONE && e.message().empty();
    };
    auto throws = [](const lightgpt::batch_event &e) {
        if (e.kind() == LIGHTGPT_EVENT_TOKEN)
            throw trouble{7};
    };
    auto first = request();
    first.on_event(throws);
    queue.submit(std::move(first));
    auto second = request();
    second.on_event(listen);
    queue.submit(std::move(second));
    // The step throws what the first threw, and the second has not noticed.
    EXPECT(trouble_of([&] { queue.step(); }) == 7);
    EXPECT(queue.step() == LIGHTGPT_DONE && text == alone && ends == 1);

    auto alive = std::make_shared<int>(0);
    struct counter {
        std::shared_ptr<int> events;
        std::int32_t operator()(const lightgpt::batch_event &) const
        {
            return ++*events == 4 ? LIGHTGPT_STOP : LIGHTGPT_CONTINUE;
        }
    };
    auto owned = request();
    owned.on_event(std::make_unique<counter>(counter{alive}));
    const auto id = queue.submit(std::move(owned));
    EXPECT(alive.use_count() == 2 && queue.step() == LIGHTGPT_DONE && alive.use_count() == 1);
    EXPECT(*alive == 5 && !queue.cancel(id));
    auto refused = request();
    refused.on_event(std::make_unique<counter>(counter{alive}));
    refused.priority = 99;
    EXPECT(status_of([&] { queue.submit(std::move(refused)); }) == LIGHTGPT_INVALID_ARGUMENT);
    EXPECT(alive.use_count() == 1);

    lightgpt::batch_queue_options options;
    options.worker = true;
    lightgpt::batch_queue busy(model, options);
    auto polled = request();
    polled.text = {};
    polled.tokens = model.tokenize("Once upon a time", LIGHTGPT_TEXT_ADD_SPECIAL);
    busy.pause();
    busy.submit(std::move(polled));
    busy.resume();
    text.clear();
    lightgpt::batch_event happened;
    while (busy.poll(1000000, happened) != LIGHTGPT_DONE)
        text += happened.text();
    EXPECT(text == alone && busy.drain(0) && busy.metrics().finished == 1);
    EXPECT(status_of([&] { busy.step(); }) == LIGHTGPT_BUSY);
    busy.reset();
    EXPECT(!busy);
}

void chatting(const lightgpt::model &model)
{
    lightgpt::chat chat;
    chat.messages = {{"user", "Once", {}}, {"assistant", {}, R"({"content": " upon"})"}};
    chat.messages_json = R"([{"role": "user", "content": " a time"}])";
    EXPECT(!model.chat_template() && !model.chat_template("tool_use"));
    EXPECT(status_of([&] { model.render(chat); }) == LIGHTGPT_NOT_FOUND);
    chat.template_text
        = "{% for m in messages %}{{ m.content }}{% endfor %}{{ x if add_generation_prompt }}";
    chat.variables_json = R"({"x": " there"})";
    EXPECT(model.render(chat) == "Once upon a time there");
    chat.without_answer = true;
    EXPECT(model.render(chat) == "Once upon a time");
    const auto tokens = model.tokenize("Once upon a time", LIGHTGPT_TEXT_ADD_SPECIAL);
    EXPECT(model.tokenize(chat) == tokens);
    lightgpt::session session(model);
    EXPECT(session.feed(chat) == tokens.size());
    lightgpt::batch_queue queue(model);
    lightgpt::batch_request request;
    request.chat = chat;
    request.generate.tokens_max = 1;
    EXPECT(queue.submit(std::move(request)) == 1);
    chat.template_name = "none";
    EXPECT(status_of([&] { session.feed(chat); }) == LIGHTGPT_INVALID_ARGUMENT);
}

} // namespace

int main(int argc, char **argv)
{
    EXPECT(argc == 2);
    owners(argv[1]);
    opening(argv[1]);
    reading(argv[1]);
    const lightgpt::model model = lightgpt::model::open(argv[1]);
    describing(model);
    sampling(model);
    generating(model);
    nesting(model);
    executing(model);
    batching(model);
    chatting(model);
    std::puts("all well");
    return 0;
}
