use super::*;

fn texts() -> Vec<String> {
    let texts = ["The molecule is a nutrient.", "CC(=O)Oc1ccccc1C(=O)O", "The molecule is a drug: C1CCCCC1."];
    texts.iter().cycle().take(60).map(|text| (*text).to_owned()).collect()
}

fn bpe(vocabulary_size: u32) -> Result<Tokenizer, TokenizerError> {
    crate::text::bpe::Bpe { vocab_size: vocabulary_size }.train(&texts())
}

#[test]
fn a_text_comes_back_whatever_it_holds() {
    let tokenizer = bpe(300).unwrap();
    for text in ["The molecule is", "C[C@@H](N)C(=O)O", "\u{3b2}-carotene \u{1f9ea}", " two  spaces "] {
        let ids = tokenizer.encode_target(text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        let prompt = tokenizer.encode_prompt(text).unwrap();
        assert_eq!((prompt[0], &prompt[1..]), (1, &ids[..]));
    }
    assert_eq!(made_here(&tokenizer), Some([0, 1, 2]));
    assert!((259..=300).contains(&tokenizer.vocabulary_size()));
}

#[test]
fn the_same_texts_give_the_same_bytes() {
    let made = || serde_json::to_string(&bpe(320).unwrap().inner).unwrap();
    let first = made();
    assert!((0..5).all(|_| made() == first));
}

#[test]
fn a_saved_tokenizer_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = bpe(300).unwrap();
    tokenizer.save(folder.path()).unwrap();
    let opened = Tokenizer::open(folder.path()).unwrap();
    let text = "CC(=O)N";
    assert_eq!(opened.encode_prompt(text).unwrap(), tokenizer.encode_prompt(text).unwrap());
    let error = Tokenizer::open(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the tokenizer"), "{error}");
}

#[test]
fn characters_without_a_token_are_named() {
    let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":null,"post_processor":null,"decoder":null,
        "model":{"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,
        "end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
        "vocab":{"<unk>":0,"C":1,"O":4},"merges":[]}}"#;
    let tokenizer = Tokenizer::of(json.parse().unwrap());
    assert_eq!(tokenizer.encode_target("CCO").unwrap(), [1, 1, 4]);
    // An embedding has rows for the numbers between as well.
    assert_eq!(tokenizer.vocabulary_size(), 5);
    let error = tokenizer.encode_target("CCN=P").unwrap_err().to_string();
    assert_eq!(error, "the tokenizer lacks the characters `=`, `N`, `P` of \"CCN=P\"");
    assert_eq!(tokenizer.tokens("CCN").unwrap(), ["C", "C", "<unk>"]);
}

fn of_json(json: serde_json::Value) -> Tokenizer {
    Tokenizer::of(json.to_string().parse().unwrap())
}

fn added(id: u32, content: &str) -> serde_json::Value {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
}

fn template(before: &[&str], after: &[&str], ids: &[(&str, u32)]) -> serde_json::Value {
    let special = |name: &&str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    let text = |id: &str| json!({ "Sequence": { "id": id, "type_id": 0 } });
    let single: Vec<_> =
        before.iter().map(special).chain([text("A")]).chain(after.iter().map(special)).collect();
    let pair: Vec<_> = single.iter().cloned().chain([text("B")]).collect();
    let tokens: serde_json::Map<String, serde_json::Value> = ids
        .iter()
        .map(|(name, id)| ((*name).to_owned(), json!({ "id": name, "ids": [id], "tokens": [name] })))
        .collect();
    json!({ "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens })
}

/// As LLaMA's files have it: BPE that falls back on bytes, a space before every text.
fn llama() -> Tokenizer {
    let mut vocabulary = json!({ "<unk>": 0, "<s>": 1, "</s>": 2 });
    for byte in 0..256u32 {
        vocabulary[format!("<0x{byte:02X}>")] = (3 + byte).into();
    }
    for (id, token) in (259..).zip(["\u{2581}", "C", "O", "a", "\u{2581}C", "CO"]) {
        vocabulary[token] = id.into();
    }
    of_json(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "\u{2581}" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "\u{2581}" },
        ] },
        "pre_tokenizer": null,
        "post_processor": template(&["<s>"], &[], &[("<s>", 1)]),
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "\u{2581}" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>",
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary,
            "merges": [["\u{2581}", "C"], ["C", "O"]] },
    }))
}

/// As T5's files have it: Unigram over Metaspace, and `</s>` after every text.
fn t5() -> Tokenizer {
    let pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u{2581}", -2.0),
        ("C", -3.0),
        ("\u{2581}CO", -4.0),
        ("O", -3.5),
    ];
    of_json(json!({
        "version": "1.0", "padding": null,
        // As a file has it whose writer cut texts.
        "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 },
        "added_tokens": [added(0, "<pad>"), added(1, "</s>"), added(2, "<unk>"), added(7, "<extra_id_0>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [
            { "type": "WhitespaceSplit" },
            { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true },
        ] },
        "post_processor": template(&[], &["</s>"], &[("</s>", 1)]),
        "decoder": { "type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true },
        "model": { "type": "Unigram", "unk_id": 2, "byte_fallback": false, "vocab": pieces },
    }))
}

/// As BERT's files have it: WordPiece between `[CLS]` and `[SEP]`.
fn bert() -> Tokenizer {
    of_json(json!({
        "version": "1.0", "truncation": null,
        "padding": { "strategy": { "Fixed": 12 }, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": [added(0, "[PAD]"), added(1, "[UNK]"), added(2, "[CLS]"), added(3, "[SEP]")],
        "normalizer": { "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": template(&["[CLS]"], &["[SEP]"], &[("[CLS]", 2), ("[SEP]", 3)]),
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": { "[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "mole": 4, "##cule": 5, "acid": 6 } },
    }))
}

#[test]
fn llama_texts_begin_and_fall_back_on_bytes() {
    let tokenizer = llama();
    // `</s>` after a target is the trainer's to add: a prompt must not end with it.
    assert_eq!(tokenizer.encode_prompt("CO a").unwrap(), [1, 263, 261, 259, 262]);
    assert_eq!(tokenizer.encode_target("CO a").unwrap(), [263, 261, 259, 262]);
    let bytes = tokenizer.encode_target("\u{3b2}").unwrap();
    assert_eq!(bytes, [259, 3 + 0xCE, 3 + 0xB2]);
    for text in ["CO a", "\u{3b2}-C", " two  spaces "] {
        assert_eq!(tokenizer.decode(&tokenizer.encode_prompt(text).unwrap()).unwrap(), text);
    }
    assert_eq!(tokenizer.vocabulary_size(), 265);
}

#[test]
fn t5_prompts_end_and_are_not_cut() {
    let tokenizer = t5();
    assert_eq!(tokenizer.encode_prompt("CO C CO").unwrap(), [5, 3, 4, 5, 1]);
    assert_eq!(tokenizer.encode_target("CO C").unwrap(), [5, 3, 4]);
    assert_eq!(tokenizer.decode(&[5, 3, 4, 1, 0]).unwrap(), "CO C");
    assert_eq!(tokenizer.encode_target("CO~").unwrap(), [5, 2]);
    assert_eq!(tokenizer.vocabulary_size(), 8);
}

#[test]
fn bert_texts_are_framed_and_not_filled_up() {
    let tokenizer = bert();
    assert_eq!(tokenizer.encode_prompt("Molecule acid").unwrap(), [2, 4, 5, 6, 3]);
    assert_eq!(tokenizer.encode_target("ACID").unwrap(), [6]);
    assert_eq!(tokenizer.decode(&[2, 4, 5, 6, 3, 0]).unwrap(), "molecule acid");
    let error = tokenizer.encode_target("acid salt").unwrap_err().to_string();
    assert_eq!(error, "the tokenizer lacks the characters `salt` of \"acid salt\"");
}

/// Opens a tokenizer as a folder has it.
fn open(json: &serde_json::Value) -> Result<Tokenizer, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(TOKENIZER_FILE), json.to_string()).unwrap();
    Tokenizer::open(folder.path())
        .map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "F"))
}

fn written(tokenizer: &Tokenizer) -> serde_json::Value {
    serde_json::to_value(&tokenizer.inner).unwrap()
}

#[test]
fn a_tokenizer_that_draws_is_refused() {
    let mut json = written(&llama());
    for (dropout, is_refused) in
        [(json!(0.5), true), (json!(1.0), true), (json!(0.0), false), (json!(null), false)]
    {
        json["model"]["dropout"] = dropout.clone();
        match open(&json) {
            Ok(tokenizer) => {
                assert!(!is_refused);
                assert_eq!(tokenizer.encode_target("CO a").unwrap(), [263, 261, 259, 262]);
            }
            Err(error) => {
                assert!(is_refused, "{dropout}");
                assert!(
                    error.starts_with("cannot use the tokenizer F/tokenizer.json: `model.dropout` is "),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn two_tokens_of_one_number_are_refused() {
    let mut json = written(&llama());
    json["model"]["vocab"]["CO"] = 261.into();
    assert_eq!(
        open(&json).unwrap_err(),
        "cannot use the tokenizer F/tokenizer.json: `CO` and `O` both have the number 261"
    );
}

#[test]
fn what_panics_in_the_library_is_an_error() {
    for charsmap in ["", "AAAA", "/////w==", "BAAAAP////8="] {
        let mut json = written(&llama());
        json["normalizer"] = json!({ "type": "Precompiled", "precompiled_charsmap": charsmap });
        let failed = match open(&json) {
            Ok(tokenizer) => tokenizer.encode_target("CO a").map(|_| ()).map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        let error = failed.unwrap_err();
        assert!(
            error.starts_with("cannot read the tokenizer F/") || error.starts_with("cannot tokenize"),
            "{error}"
        );
    }
}

#[test]
fn texts_that_grow_beyond_memory_are_refused() {
    let (tokenizer, most) = (t5(), MOST_BYTES as usize);
    assert!(tokenizer.encode_target(&"C".repeat(1000)).is_ok());
    let error = tokenizer.encode_target(&"C ".repeat(most / 2 + 1)).unwrap_err().to_string();
    assert!(error.starts_with("a text of 16777218 bytes is too long"), "{error}");
    let mut json = written(&llama());
    json["normalizer"] = json!({ "type": "Prepend", "prepend": "C".repeat(50_000_000) });
    let error = open(&json).unwrap().encode_target("CO").unwrap_err().to_string();
    assert!(error.starts_with("a text of 2 bytes is too long"), "{error}");
    // Each doubles what the one before made.
    let double = json!({ "type": "Replace", "pattern": { "String": "C" }, "content": "CC" });
    json["normalizer"] = json!({ "type": "Sequence", "normalizers": vec![double.clone(); 60] });
    let error = open(&json).unwrap().encode_target("CO").unwrap_err().to_string();
    assert!(error.starts_with("a text of 2 bytes is too long"), "{error}");
    json["normalizer"] = json!(null);
    json["decoder"] = json!({ "type": "Sequence", "decoders": vec![double; 60] });
    let tokenizer = open(&json).unwrap();
    let error = tokenizer.decode(&tokenizer.encode_target("CO").unwrap()).unwrap_err().to_string();
    assert!(error.contains("bytes is too long"), "{error}");
}

#[test]
#[cfg(unix)]
fn what_is_no_file_is_no_tokenizer() {
    let error = Tokenizer::open_file(Path::new("/dev/null")).unwrap_err().to_string();
    assert_eq!(error, "cannot read the tokenizer /dev/null: it is no file");
}

#[test]
fn what_cannot_be_trained_says_why() {
    let error = bpe(100).unwrap_err().to_string();
    assert_eq!(error, "cannot make a tokenizer: a byte-level vocabulary has at least 259 tokens, not 100");
    assert!(crate::text::bpe::Bpe { vocab_size: 300 }.train(&[]).is_err());
}
