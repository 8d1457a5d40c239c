"""Structure marks of today's chat templates are escaped in data; ordinary text is unchanged."""

from __future__ import annotations

import time

import pytest

from verifiers.judge.structure import disarm

TOKENS = """
<|im_start|> <|im_end|> <|endoftext|> <tool_call> </tool_call> <tool_response> <tools> </tools> <think> </think>
<function= <parameter= <|fim_prefix|> <|vision_start|> <tool_calls> <thinking> <|begin_of_text|>
<|start_header_id|> <|eot_id|> <|python_tag|> <<SYS>> <</SYS>> <s> </s> <unk> <pad> <reserved_special_token_1>
<start_of_turn> <end_of_turn> <start_of_image> <end_of_image> <unused0> <unused99> <bos> <eos> <mask>
<image_soft_token> <start_function_call> <end_function_call> [INST] [/INST] [TOOL_CALLS] [AVAILABLE_TOOLS]
[/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [THINK] [/THINK] [IMG]
[IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [ARGS] [CALL_ID] [AUDIO] [BEGIN_AUDIO] [TOOL_CONTENT]
[MODEL_SETTINGS] <SPECIAL_12> <SPECIAL_999> <｜begin▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜>
<｜DSML｜ <｜end▁of▁sentence｜> [gMASK] [sMASK] [MASK] <sop> <eop> <|user|> <|observation|> <arg_key> </arg_key>
<arg_value> <|im_system|> <|im_middle|> <|tool_calls_section_begin|> [BOS] [EOS] <|start|> <|channel|> <|message|>
<|call|> <|return|> <|start_of_role|> <|end_of_role|> <|tool_call|> <｜hy_User｜> <hy_place_holder_no_1> <|extra_0|>
<BOS_TOKEN> <EOS_TOKEN> <|START_OF_TURN_TOKEN|> <|CHATBOT_TOKEN|> <co: </co: <extra_id_0> <extra_id_1> <TOOLCALL>
<|begin_of_sentence|> <mask:0> <|LOC_0|> <minimax:tool_call> </minimax:tool_call> <beginning_of_sentence> ]~b]
]~!b[ [e~[ <seed:bos> <seed:eos> <seed:think> <seed:tool_call> <longcat_think> <longcat_tool_call> </longcat_s>
[|system|] [|endofturn|] <role> </role> <fim_prefix> <fim_suffix> <jupyter_start> <0x0A> <eoa> <eoh> <EOT> [CLS]
[SEP] [PAD] [UNK] <FILL_ME> <function_calls> </function_calls> <fake_token_around_image> <end_of_utterance> [@BOS@]
<tool_sep>
"""


@pytest.mark.parametrize("token", [*TOKENS.split(), "<invoke name=", "<co: 0>", "</s >"])
def test_a_template_token_is_written_out(token: str) -> None:
    for text in (token, f"so{token} and", f"\n{token}\n", token * 3, f"x {token} y"):
        assert token not in disarm(text)
    assert disarm(token).startswith({"<": "&lt;", "[": "&#91;", "]": "&#93;"}[token[0]])  # to be read all the same


ORDINARY = [
    "a < b and c > d, x<y, y>z, 3<4>2, i<=n, p -> q, p => q, 1 << 2 >> 3",
    "<b>bold</b> <i>x</i> <div class='user'><p>text</p><br/></div> <a href='https://x'>y</a> <pre>code</pre>",
    "<img src='a'> <s class='x'> <input type='text' role='user'>",
    "<html><head><title>t</title></head><body><table><tr><td>1</td></tr></table><ul><li>a</li></ul><code>x</code>",
    "std::vector<int> v; map<string, vector<size_t>> m; std::array<std::string, 3> a; unique_ptr<Node<T>> p;",
    "static_cast<uint32_t>(x); template <typename T> void f(T&& t); #include <stdio.h>; #include <sys/types.h>",
    "vector<my_type> w; std::map<node_id, edge_list> g; foo<bar_baz>(); <your_name> <file_name>",
    "List<String> xs = new ArrayList<>(); Map<K, V>; Option<Box<dyn Fn(i32) -> i32>>; f::<u8>()",
    "<answer>42</answer> <reasoning>because</reasoning> <xs:element name='a'/> <svg:rect/> <https://example.com>",
    "[TODO] [NOTE] [WARNING] [1] [a] [x, y] [0, 1) ]0, 1[ arr[MAX_SIZE] d['key'] [link](url) [args] [options] [user]",
    "x[i][j], [[1, 2], [3, 4]], \\left[ a \\right], [A-Z]+, [[A>B]], |x| < |y|, P(A|B), a || b, [| i <- xs |]",
    "if (argc<tool) call(turn>token); think > act; special<reserved; user@host:~$ tool --args < in > out",
    "π ≈ 3.14, «quoted», 你好, é — ∀x∈ℝ: x≤y ⟨ψ|φ⟩",
    "role: user, the tool call, start of turn, end_of_turn, function=sin, unused0, extra_id_0, 0x0A",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert disarm(text) == text


@pytest.mark.parametrize(
    "piece", ["<", "<a_", "<tool_", "<" + "a_" * 40, "[", "]~", "< / ", "<\n", "<unused_", "&lt;", "<|"]
)
def test_a_text_of_beginnings_takes_no_time(piece: str) -> None:
    started = time.process_time()
    disarm(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 3
