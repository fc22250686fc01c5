/* The pre-tokenizers, by the names that tokenizer.ggml.pre uses. Each rule is quoted as the expression it
 * stands for. C is the contraction group 's|'t|'re|'ve|'m|'ll|'d, in any case unless it says otherwise. */
#include <string.h>

#include "model/vocab_split_int.h"

#define L UNICODE_LETTER
#define N UNICODE_NUMBER
#define P UNICODE_PUNCTUATION
#define S UNICODE_SYMBOL
#define M UNICODE_MARK
#define SPACE UNICODE_SPACE
#define UNBOUNDED SIZE_MAX
#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* ---- Rules of the GPT-2 family */
#define WORD_STAGE(name, ...)                                \
    static const struct word_rule name##_rule = __VA_ARGS__; \
    static const struct split_stage name = {.match = split_match_word, .u.word = &name##_rule}

/* C (lower case) | ?L+| ?N+| ?[^\s L N]+|\s+(?!\S)|\s+ */
WORD_STAGE(gpt2, {.prefix = CONTRACTION_LOWER,
                  .word = L,
                  .blank_lead = true,
                  .number_max = UNBOUNDED,
                  .punctuation_not = SPACE | L | N});

/* C|[^\r\n L N]?L+|N{1,3}| ?[^\s L N]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+; the others differ in a detail each */
#define LLAMA3_BUT(...)                                                                              \
    {                                                                                                \
        .prefix = CONTRACTION_ANY, .word = L, .lead_not = L | N, .number_max = 3,                    \
        .punctuation_not = SPACE | L | N, .tail = TAIL_NEWLINES, .newline = NEWLINE_RUN, __VA_ARGS__ \
    }
WORD_STAGE(llama3, LLAMA3_BUT(.cascade = false));
WORD_STAGE(jais2, LLAMA3_BUT(.cascade = true));

/* N instead of N{1,3}; then with marks in words; with N+; without the tail */
#define QWEN2_BUT(...)                                                            \
    {                                                                             \
        .prefix = CONTRACTION_ANY, .word = L, .lead_not = L | N, .number_max = 1, \
        .punctuation_not = SPACE | L | N, .newline = NEWLINE_RUN, __VA_ARGS__     \
    }
WORD_STAGE(qwen2, QWEN2_BUT(.tail = TAIL_NEWLINES));
WORD_STAGE(seed_coder, QWEN2_BUT(.tail = TAIL_NONE));
/* [^\r\n L N]?(?:L M*(?: L M*)*)+ for words, a tail of one */
WORD_STAGE(exaone_moe, QWEN2_BUT(.shape = SHAPE_PHRASE, .tail = TAIL_ONE));
WORD_STAGE(qwen35, {.prefix = CONTRACTION_ANY,
                    .word = L | M,
                    .lead_not = L | N,
                    .number_max = 1,
                    .punctuation_not = SPACE | L | M | N,
                    .tail = TAIL_NEWLINES,
                    .newline = NEWLINE_RUN});
WORD_STAGE(minicpm5_words, {.prefix = CONTRACTION_ANY,
                            .word = L,
                            .lead_not = L | N,
                            .number_max = UNBOUNDED,
                            .punctuation_not = SPACE | L | N,
                            .tail = TAIL_NEWLINES,
                            .newline = NEWLINE_RUN});
WORD_STAGE(ufakzeka, {.word = L,
                      .lead_not = L | N,
                      .number_max = 1,
                      .punctuation_not = SPACE | L | N,
                      .tail = TAIL_NEWLINES,
                      .newline = NEWLINE_RUN});

/* [^\r\n L N]?upper*lower+C?|[^\r\n L N]?upper+lower*C?|N{1,3}| ?[^\s L N]+[\r\n/]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+ */
#define O200K(...)                                                                          \
    {                                                                                       \
        .lead_not = L | N, .punctuation_not = SPACE | L | N, .tail = TAIL_NEWLINES_SLASHES, \
        .newline = NEWLINE_RUN, __VA_ARGS__                                                 \
    }
WORD_STAGE(gpt4o, O200K(.word = L, .shape = SHAPE_CASED, .suffix = CONTRACTION_ANY, .number_max = 3));
WORD_STAGE(granite_multi,
           O200K(.word = L | M, .shape = SHAPE_CASED, .suffix = CONTRACTION_ANY, .number_max = 3));
WORD_STAGE(tekken, O200K(.word = L, .shape = SHAPE_CASED, .number_max = 1));
/* the same written with \p{Lu}...\p{M}, which the reference reads as [L M] throughout */
WORD_STAGE(tiny_aya_words, O200K(.word = L | M, .suffix = CONTRACTION_ANY, .number_max = 3));
WORD_STAGE(youtu_words, O200K(.word = L | M, .suffix = CONTRACTION_ANY, .number_max = 1));

/* Han+|words of other letters with C?|N{1,3}| ?[^\s L N]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
WORD_STAGE(kimi_k2, {.suffix = CONTRACTION_ANY,
                     .shape = SHAPE_NOT_HAN,
                     .word = L,
                     .lead_not = L | N,
                     .number_max = 3,
                     .punctuation_not = SPACE | L | N,
                     .tail = TAIL_NEWLINES,
                     .newline = NEWLINE_RUN});

/* [!-/:-@[-`{-~][A-Za-z]+|[^\r\n L P S]?[L M]+| ?[P S]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
#define DEEPSEEK3(...)                                                                              \
    {                                                                                               \
        .ascii_mark = true, .word = L | M, .lead_not = L | P | S, .punctuation = P | S, __VA_ARGS__ \
    }
WORD_STAGE(deepseek3_words, DEEPSEEK3(.tail = TAIL_NEWLINES, .newline = NEWLINE_RUN));
WORD_STAGE(spark_words, DEEPSEEK3(.tail = TAIL_NONE, .newline = NEWLINE_ONE));

/* ---- Rules that cut out runs of a set */
#define RUN_STAGE_OF(name, set_list, ...)                              \
    static const struct run_rule name##_rule = {                       \
        .sets = set_list, .set_count = LENGTH(set_list), __VA_ARGS__}; \
    static const struct split_stage name = {.match = split_match_run, .u.run = &name##_rule}

static const struct point_set number_set[] = {{.classes = N}};
RUN_STAGE_OF(digit, number_set, .max = 1);    /* N */
RUN_STAGE_OF(digits_3, number_set, .max = 3); /* N{1,3} */
RUN_STAGE_OF(digits, number_set, .max = 0);   /* N+ */

static const struct point_range ascii_digit_ranges[] = {{'0', '9'}};
static const struct point_set ascii_digit_set[] = {{.ranges = ascii_digit_ranges, .range_count = 1}};
RUN_STAGE_OF(three_digits, ascii_digit_set, .exact = 3); /* [0-9][0-9][0-9] */

static const struct point_range newline_ranges[] = {{'\n', '\n'}, {'\r', '\r'}};
static const struct point_set newline_set[] = {{.ranges = newline_ranges, .range_count = 2}};
RUN_STAGE_OF(newline, newline_set, .max = 1); /* [\r\n] */

static const struct point_set space_set[] = {{.classes = SPACE}};
RUN_STAGE_OF(last_spaces, space_set, .at_end = true); /* \s+$ */

static const struct point_set letter_set[] = {{.classes = L}};
static const struct point_set punctuation_set[] = {{.classes = P}};
RUN_STAGE_OF(space_letters, letter_set, .lead = LEAD_SPACE);          /* \s?L+ */
RUN_STAGE_OF(space_punctuation, punctuation_set, .lead = LEAD_SPACE); /* \s?P+ */

/* [P$+<=>^~|]+, and with the backquote */
static const struct point_range sign_ranges[] = {{'$', '$'}, {'+', '+'}, {'<', '>'}, {'^', '^'},
                                                 {'~', '~'}, {'|', '|'}, {'`', '`'}};
static const struct point_set sign_set[] = {
    {.classes = P, .ranges = sign_ranges, .range_count = LENGTH(sign_ranges) - 1}};
static const struct point_set falcon_sign_set[] = {
    {.classes = P, .ranges = sign_ranges, .range_count = LENGTH(sign_ranges)}};
RUN_STAGE_OF(signs, sign_set, .max = 0);
RUN_STAGE_OF(falcon_signs, falcon_sign_set, .max = 0);

/* [P!-/:-@\[-`{-~] */
static const struct point_range ascii_mark_ranges[] = {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}};
static const struct point_set mark_set[] = {{.classes = P, .ranges = ascii_mark_ranges, .range_count = 4}};
RUN_STAGE_OF(one_mark, mark_set, .max = 1);

/* " ?[^(\s|.,!?…。，、।۔،)]+": the list of BLOOM, read as a set, as it is written */
static const struct point_range bloom_ranges[] = {
    {'(', ')'},     {'|', '|'},       {'.', '.'},       {',', ','},       {'!', '!'},
    {'?', '?'},     {0x2026, 0x2026}, {0x3002, 0x3002}, {0xff0c, 0xff0c}, {0x3001, 0x3001},
    {0x964, 0x964}, {0x6d4, 0x6d4},   {0x60c, 0x60c}};
static const struct point_set bloom_set[] = {
    {.classes = SPACE, .ranges = bloom_ranges, .range_count = LENGTH(bloom_ranges), .negated = true}};
RUN_STAGE_OF(bloom, bloom_set, .lead = LEAD_BLANK);

/* DeepSeek LLM: letters with a case, as its tokenizer.json lists them */
static const struct point_range cased_ranges[] = {
    {0x41, 0x5a},       {0x61, 0x7a},       {0xb5, 0xb5},       {0xc0, 0xd6},       {0xd8, 0xf6},
    {0xf8, 0x1ba},      {0x1bc, 0x1bf},     {0x1c4, 0x293},     {0x295, 0x2af},     {0x370, 0x373},
    {0x376, 0x377},     {0x37b, 0x37d},     {0x37f, 0x37f},     {0x386, 0x386},     {0x388, 0x38a},
    {0x38c, 0x38c},     {0x38e, 0x3a1},     {0x3a3, 0x3f5},     {0x3f7, 0x481},     {0x48a, 0x52f},
    {0x531, 0x556},     {0x10a0, 0x10c5},   {0x13a0, 0x13f5},   {0x13f8, 0x13fd},   {0x1c90, 0x1cba},
    {0x1cbd, 0x1cbf},   {0x1d00, 0x1d2b},   {0x1d6b, 0x1d77},   {0x1d79, 0x1d9a},   {0x1e00, 0x1f15},
    {0x1f18, 0x1f1d},   {0x1f20, 0x1f45},   {0x1f48, 0x1f4d},   {0x1f50, 0x1f57},   {0x1f59, 0x1f59},
    {0x1f5b, 0x1f5b},   {0x1f5d, 0x1f5d},   {0x1f5f, 0x1f7d},   {0x1f80, 0x1fb4},   {0x1fb6, 0x1fbc},
    {0x1fbe, 0x1fbe},   {0x1fc2, 0x1fc4},   {0x1fc6, 0x1fcc},   {0x1fd0, 0x1fd3},   {0x1fd6, 0x1fdb},
    {0x1fe0, 0x1fec},   {0x1ff2, 0x1ff4},   {0x1ff6, 0x1ffc},   {0x2102, 0x2102},   {0x2107, 0x2107},
    {0x210a, 0x2113},   {0x2115, 0x2115},   {0x2119, 0x211d},   {0x2124, 0x2124},   {0x2126, 0x2126},
    {0x2128, 0x2128},   {0x212a, 0x212d},   {0x212f, 0x2134},   {0x2139, 0x2139},   {0x213c, 0x213f},
    {0x2145, 0x2149},   {0x214e, 0x214e},   {0x2183, 0x2184},   {0x2c00, 0x2c7b},   {0x2c7e, 0x2ce4},
    {0x2ceb, 0x2cee},   {0x2cf2, 0x2cf3},   {0xa640, 0xa66d},   {0xa680, 0xa69b},   {0xa722, 0xa76f},
    {0xa771, 0xa787},   {0xa78b, 0xa78e},   {0xab70, 0xabbf},   {0xfb00, 0xfb06},   {0xfb13, 0xfb17},
    {0xff21, 0xff3a},   {0xff41, 0xff5a},   {0x10400, 0x1044f}, {0x104b0, 0x104d3}, {0x104d8, 0x104fb},
    {0x10c80, 0x10cb2}, {0x10cc0, 0x10cf2}, {0x118a0, 0x118df}, {0x1e900, 0x1e943},
};
static const struct point_set cased_set[] = {{.ranges = cased_ranges, .range_count = LENGTH(cased_ranges)}};
RUN_STAGE_OF(space_cased, cased_set, .lead = LEAD_SPACE);

/* \s?[!-/:-~！-／：-～‘-‟　-。]+ */
static const struct point_range wide_mark_ranges[] = {{'!', '/'},       {':', '~'},       {0xff01, 0xff0f},
                                                      {0xff1a, 0xff5e}, {0x2018, 0x201f}, {0x3000, 0x3002}};
static const struct point_set wide_mark_set[] = {
    {.ranges = wide_mark_ranges, .range_count = LENGTH(wide_mark_ranges)}};
RUN_STAGE_OF(space_wide_marks, wide_mark_set, .lead = LEAD_SPACE);

/* [一-龥ࠀ-一가-퟿]+ */
static const struct point_range cjk_ranges[] = {{0x800, 0x9fa5}, {0xac00, 0xd7ff}};
static const struct point_set cjk_set[] = {{.ranges = cjk_ranges, .range_count = 2}};
RUN_STAGE_OF(cjk, cjk_set, .max = 0);

/* [一-龥぀-ゟ゠-ヿ]+ */
static const struct point_range han_kana_ranges[] = {{0x4e00, 0x9fa5}, {0x3040, 0x30ff}};
static const struct point_set han_kana_set[] = {{.ranges = han_kana_ranges, .range_count = 2}};
RUN_STAGE_OF(han_kana, han_kana_set, .max = 0);

/* Youtu: [Hangul]+|[CJK punctuation]+|[Bopomofo]+|[Han and Kana]+ */
static const struct point_range hangul_ranges[] = {{0xac00, 0xd7a3}, {0x3131, 0x318e}};
static const struct point_range cjk_mark_ranges[] = {{0xff01, 0xff01}, {0x2026, 0x2026}, {0x201c, 0x201d},
                                                     {0x2018, 0x2019}, {0x2014, 0x2014}, {0xff1a, 0xff1b},
                                                     {0xff0c, 0xff0c}, {0x3001, 0x303f}, {0xfe30, 0xfe4f}};
static const struct point_range bopomofo_ranges[] = {{0x3105, 0x312f}};
static const struct point_set youtu_sets[] = {
    {.ranges = hangul_ranges, .range_count = 2},
    {.ranges = cjk_mark_ranges, .range_count = LENGTH(cjk_mark_ranges)},
    {.ranges = bopomofo_ranges, .range_count = 1},
    {.ranges = han_kana_ranges, .range_count = 2}};
RUN_STAGE_OF(youtu_cjk, youtu_sets, .max = 0);

/* AFMoE: scripts of Asia. Its list begins a range at U+8C48 (豈, once U+F900 before normalisation). */
static const struct point_range asia_ranges[] = {
    {0x4e00, 0x9fff}, {0x3400, 0x4dbf}, {0x8c48, 0xfaff}, {0x3040, 0x30ff}, {0xff65, 0xff9f},
    {0x2f00, 0x2fdf}, {0xe40, 0xeff},   {0x1780, 0x17ff}, {0x1000, 0x109f}, {0x1100, 0x11ff}};
static const struct point_set asia_set[] = {{.ranges = asia_ranges, .range_count = LENGTH(asia_ranges)}};
RUN_STAGE_OF(asia, asia_set, .max = 0);

/* ---- Rules of their own */
static const struct split_stage digits_left = {.cut = split_cut_digits_left};
static const struct split_stage digits_right = {.cut = split_cut_digits_right};
static const struct split_stage newlines = {.cut = split_cut_newlines};
static const struct split_stage sentinel = {.match = split_match_sentinel};
static const struct split_stage image = {.match = split_match_image};
static const struct split_stage blanks = {.match = split_match_blanks};

/* ---- The table */
#define STAGES(name, ...) static const struct split_stage *const name##_stages[] = {__VA_ARGS__, NULL}
STAGES(default, &signs, &gpt2, &digits, &three_digits);
STAGES(gpt2, &gpt2);
STAGES(starcoder, &digit, &gpt2);
STAGES(falcon, &falcon_signs, &gpt2, &three_digits);
STAGES(llama3, &llama3);
STAGES(jais2, &jais2);
STAGES(qwen2, &qwen2);
STAGES(qwen35, &qwen35);
STAGES(deepseek_llm, &newline, &space_cased, &space_wide_marks, &last_spaces, &cjk, &digits);
STAGES(deepseek_coder, &newline, &space_letters, &space_punctuation, &cjk, &digit);
STAGES(deepseek3, &digits_3, &han_kana, &deepseek3_words);
STAGES(spark, &digits_3, &han_kana, &spark_words, &digit);
STAGES(youtu, &youtu_cjk, &youtu_words);
STAGES(bloom, &bloom);
STAGES(viking, &bloom, &digit);
STAGES(tekken, &tekken);
STAGES(chameleon, &sentinel, &image, &blanks, &digit, &one_mark, &gpt2);
STAGES(gpt4o, &gpt4o);
STAGES(granite_multi, &granite_multi);
STAGES(tiny_aya, &digits_left, &tiny_aya_words);
STAGES(kimi_k2, &kimi_k2);
STAGES(superbpe, &digits, &digits_right);
STAGES(seed_coder, &seed_coder);
STAGES(ufakzeka, &ufakzeka);
STAGES(afmoe, &digits_left, &asia, &deepseek3_words);
STAGES(laguna, &newlines, &qwen2);
STAGES(exaone_moe, &exaone_moe);
STAGES(newlines, &newlines);
STAGES(minicpm5, &digits_3, &minicpm5_words);

static const struct pretokenizer pretokenizers[] = {
    {"default", default_stages, 0},
    {"", default_stages, 0},
    {"llama3", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"llama-v3", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"llama-bpe", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"falcon3", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"falcon-h1", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"pixtral", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"midm-2.0", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"lfm2", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"jina-v5-nano", llama3_stages, PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"minicpm5", minicpm5_stages, PRE_IGNORE_MERGES},
    {"dbrx", llama3_stages, 0},
    {"smaug-bpe", llama3_stages, 0},
    {"chatglm-bpe", llama3_stages, PRE_NO_BOS},
    {"glm4", llama3_stages, PRE_NO_BOS | PRE_IGNORE_MERGES},
    {"glm5", llama3_stages, PRE_NO_BOS | PRE_IGNORE_MERGES},
    {"jais-2", jais2_stages, 0},
    {"deepseek-llm", deepseek_llm_stages, PRE_KEEP_SPACES},
    {"deepseek-coder", deepseek_coder_stages, PRE_KEEP_SPACES},
    {"deepseek-v3", deepseek3_stages, PRE_KEEP_SPACES},
    {"hunyuan-dense", deepseek3_stages, PRE_KEEP_SPACES},
    {"hy_v4", deepseek3_stages, PRE_KEEP_SPACES},
    {"joyai-llm", deepseek3_stages, PRE_KEEP_SPACES},
    {"spark2_5", spark_stages, PRE_KEEP_SPACES},
    {"youtu", youtu_stages, PRE_KEEP_SPACES | PRE_IGNORE_MERGES},
    {"falcon", falcon_stages, 0},
    {"starcoder", starcoder_stages, 0},
    {"refact", starcoder_stages, 0},
    {"command-r", starcoder_stages, PRE_KEEP_SPACES},
    {"smollm", starcoder_stages, PRE_KEEP_SPACES},
    {"codeshell", starcoder_stages, 0},
    {"exaone", starcoder_stages, 0},
    {"minerva-7b", starcoder_stages, 0},
    {"mellum2", starcoder_stages, 0},
    {"gpt-2", gpt2_stages, 0},
    {"phi-2", gpt2_stages, 0},
    {"mpt", gpt2_stages, 0},
    {"olmo", gpt2_stages, 0},
    {"jais", gpt2_stages, 0},
    {"exaone4", gpt2_stages, 0},
    {"jina-es", gpt2_stages, 0},
    {"jina-de", gpt2_stages, 0},
    {"jina-v2-es", gpt2_stages, 0},
    {"jina-v2-de", gpt2_stages, 0},
    {"jina-v1-en", gpt2_stages, 0},
    {"jina-v2-code", gpt2_stages, 0},
    {"roberta-bpe", gpt2_stages, 0},
    {"gigachat", gpt2_stages, 0},
    {"a.x-4.0", gpt2_stages, 0},
    {"mellum", gpt2_stages, 0},
    {"modern-bert", gpt2_stages, 0},
    {"trillion", gpt2_stages, PRE_KEEP_SPACES},
    {"granite-docling", gpt2_stages, PRE_KEEP_SPACES},
    {"qwen2", qwen2_stages, PRE_KEEP_SPACES},
    {"deepseek-r1-qwen", qwen2_stages, PRE_KEEP_SPACES},
    {"kormo", qwen2_stages, PRE_KEEP_SPACES},
    {"f2llmv2", qwen2_stages, PRE_KEEP_SPACES},
    {"megrez", qwen2_stages, 0},
    {"stablelm2", qwen2_stages, 0},
    {"hunyuan", qwen2_stages, PRE_KEEP_SPACES},
    {"solar-open", qwen2_stages, PRE_KEEP_SPACES},
    {"grok-2", qwen2_stages, PRE_KEEP_SPACES},
    {"bailingmoe", qwen2_stages, PRE_KEEP_SPACES},
    {"bailingmoe2", qwen2_stages, PRE_KEEP_SPACES},
    {"llada-moe", qwen2_stages, PRE_KEEP_SPACES},
    {"laguna", laguna_stages, PRE_KEEP_SPACES},
    {"ufakzeka", ufakzeka_stages, PRE_KEEP_SPACES},
    {"qwen35", qwen35_stages, PRE_KEEP_SPACES},
    {"seed-coder", seed_coder_stages, PRE_KEEP_SPACES},
    {"exaone-moe", exaone_moe_stages, 0},
    {"poro-chat", bloom_stages, PRE_KEEP_SPACES},
    {"bloom", bloom_stages, 0},
    {"gpt3-finnish", bloom_stages, 0},
    {"viking", viking_stages, PRE_KEEP_SPACES},
    {"tekken", tekken_stages, PRE_KEEP_SPACES | PRE_IGNORE_MERGES | PRE_ADD_BOS},
    {"chameleon", chameleon_stages, PRE_KEEP_SPACES | PRE_ADD_BOS},
    {"gpt-4o", gpt4o_stages, PRE_KEEP_SPACES},
    {"llama4", gpt4o_stages, PRE_KEEP_SPACES},
    {"kanana2", gpt4o_stages, PRE_KEEP_SPACES},
    {"talkie", gpt4o_stages, PRE_KEEP_SPACES},
    {"minimax-m2", gpt4o_stages, PRE_KEEP_SPACES},
    {"granite-embed-multi-97m", granite_multi_stages, PRE_KEEP_SPACES | PRE_IGNORE_MERGES},
    {"tiny_aya", tiny_aya_stages, PRE_KEEP_SPACES},
    {"cohere2moe", tiny_aya_stages, PRE_KEEP_SPACES},
    {"superbpe", superbpe_stages, PRE_KEEP_SPACES},
    {"kimi-k2", kimi_k2_stages, PRE_KEEP_SPACES},
    {"afmoe", afmoe_stages, PRE_KEEP_SPACES},
    {"gemma4", newlines_stages, PRE_RAW | PRE_ALWAYS_BOS | PRE_NEWLINES_WHOLE},
    {"granite-embed-multi-311m", newlines_stages, PRE_RAW | PRE_ALWAYS_BOS | PRE_NEWLINES_WHOLE},
    {"sarvam-moe", newlines_stages, PRE_RAW | PRE_KEEP_SPACES},
};

const struct pretokenizer *pretokenizer_find(const char *name, size_t len)
{
    for (size_t i = 0; i < LENGTH(pretokenizers); i++)
        if (strlen(pretokenizers[i].name) == len && memcmp(pretokenizers[i].name, name, len) == 0)
            return &pretokenizers[i];
    return NULL;
}
