"""The findings a filter can take out, and what each is called in dropped.jsonl; a leaf, read by the recipe's checks."""

FILTERS = {
    "short_answers": "short answer",
    "repeated_questions": "question asked before",
    "conflicting_answers": "question with conflicting answers",
    "repeated_answers": "answer given before",
    "boilerplate_answers": "boilerplate answer",
    "near_duplicates": "near duplicate",
    "mojibake": "mojibake",
    "dropped_letters": "letters or apostrophes dropped",
    "markup": "HTML left over",
    "blank_before_mark": "blank before a question mark",
    "runs_of_blanks": "runs of blanks",
    "urls": "web address",
    "phones": "telephone number",
    "emails": "e-mail address",
    "revealing_explanations": "explanation names the answer",
    "missing_explanations": "no explanation",
    "equal_options": "two equal options",
}
