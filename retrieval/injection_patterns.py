"""What sentences say that give orders to a language model, as patterns in fourteen languages.

They are read in casefolded text (`retrieval.injection` folds it). Each names an act that no
passage has reason to ask of its reader: to ignore instructions, to say given words and nothing
else, to shape "your answer", to take another role, to reveal a prompt. What manuals do say ("Print
the version", "ignore the case") has to stay.
"""

from __future__ import annotations

_GAP = r"\W+(?:\w+\W+){0,4}?"
_SAY = r"(?:print|say|output|reply|respond|answer|write|return|repeat|echo|type)"
_REPLY = r"(?:answer|answers|reply|replies|response|responses|output|completion|summary)"
_ORDERS = r"(?:instructions?|prompts?|directions?|commands?|rules?|guidelines?|orders?|messages?)"

ENGLISH = (
    # "Ignore any previous and following instructions"
    rf"\b(?:ignor(?:e|ing)|disregard(?:ing)?|forget|override|bypass|discard|neglect)\b{_GAP}"
    rf"(?:previous|prior|above|earlier|preceding|foregoing|following|other|your|system|initial)\b"
    rf"(?:\W+\w+){{0,3}}?\W+(?:{_ORDERS}|context|text|sources?|passages?|everything)\b",
    r"\b(?:ignore|disregard|forget)\W+(?:all|any|every|the|these|those)\W+(?:the\W+|of\W+)*"
    r"(?:instructions|prompts|directions|rules|guidelines)\b(?!\W+(?:on|in|for|at|given by)\b)",
    r"\b(?:ignore|disregard|forget)\W+(?:everything|anything|all(?:\W+of)?(?:\W+that)?)\W+"
    r"(?:above|before|prior|previous|else|(?:that\W+)?(?:you|was|i|came)\b)",
    r"\b(?:do not|don't|stop)\W+(?:follow|obey|listen|answer|us)\w*\W+(?:to\W+)?(?:the|any|your)\W+"
    r"(?:\w+\W+){0,2}(?:instructions|prompts?|user(?:'s)?|question|sources)\b",
    # "just print ...", "say exactly ...", "answer only with ..."
    rf"\b(?:just|simply|instead|now|only)\W+{_SAY}\b(?=\W*[\"'“”«»‘’:]|\W+(?:the\W+(?:word|phrase|"
    rf"code|string|text|sentence|following)|exactly|only|nothing)\b)",
    rf"(?:^|[.!?:;,\-]\W*|\b(?:and|then|please|must|should|always|to|only)\W+){_SAY}\W+"
    r"(?:(?:only|just|exactly|with|using|back|verbatim|to\W+\w+\W+(?:question|user)\w*)\W+)+"
    r"(?:the\W+)?(?:single\W+|one\W+|exact\W+|secret\W+|following\W+)*"
    r"(?:word|phrase|code\s?word|string|sentence|text|token|message|canary|password|[\"'“«‘])",
    rf"\b{_SAY}\W+(?:nothing|no\W+more)\W+(?:but|else|other)\b",
    rf"\binstead\W+of\W+(?:answering|responding|replying|following|an?\W+{_REPLY})\b",
    r"\b(?:say|print|output|mention|include|insert|append|add|write|repeat|use)\W+(?:\w+\W+){0,4}?"
    r"(?:word|phrase|code\s?word|string|token|canary|password|sentence|line|marker|tag)\b.{0,60}?"
    rf"\b(?:in|to|at|into|of|as)\W+(?:\w+\W+){{0,4}}?(?:your|every|each|the|any)\W+(?:\w+\W+)?{_REPLY}\b",
    rf"\b(?:begin|start|end|finish|conclude|close|open|preface|prefix)\W+(?:your|every|each|all|any|"
    rf"the)\W+(?:\w+\W+)?(?:{_REPLY}|sentences?|messages?)\W+(?:with|by|using)\b",
    rf"\b(?:your|every|each|the)\W+(?:\w+\W+)?{_REPLY}\W+(?:must|should|has\W+to|have\W+to|needs?\W+to|"
    r"shall|will|is\W+to)\W+(?:\w+\W+){0,3}?(?:contain|include|begin|start|end|be|say|consist|mention|"
    r"repeat|use|read)\b.{0,40}(?:[\"'“«‘:]|\b(?:word|phrase|token|string)\b)",
    rf"\byour\W+(?:final\W+|next\W+|entire\W+|whole\W+|only\W+)?{_REPLY}\W+(?:must|should|has\W+to|"
    r"shall|is\W+to)\b",
    rf"\bin\W+your\W+(?:final\W+|next\W+)?{_REPLY}\b.{{0,40}}\b(?:word|phrase|mention|include|say)\b",
    # "You are now ...", "Attention AI:"
    r"\byou\W+are\W+(?:now|no\W+longer)\W+(?:an?|the|in|bound|called|acting|free)\b",
    r"\bfrom\W+now\W+on\W*,?\W+(?:you(?:\W+(?:are|must|will|only|always)|r\b)|always|only|answer|respond|reply|act)\b",
    r"\b(?:as\W+an?|dear|attention|hey|hello|note\W+(?:to|for)|to\W+(?:the|any|all)|for\W+(?:the|any|"
    r"all)|if\W+you\W+are\W+an?)\W+(?:\w+\W+)?(?:ai|llms?|a\.i|language\W+models?|chat\s?bots?|"
    r"assistants?|bots?|gpt|artificial\W+intelligence)(?:\W+(?:assistants?|models?|systems?|agents?))?"
    r"\W*(?:[:,!—–-]|reading\b|processing\b|that\W+(?:reads?|process))",
    r"\b(?:pretend|act|behave|roleplay)\W+(?:that\W+you\W+are|as\W+if\W+you\W+(?:were|are)|(?:to\W+be|"
    r"as|like)\W+an?\W+(?:\w+\W+){0,2}(?:ai|assistant|language\W+model|chatbot|dan))\b",
    r"\b(?:ai|llms?|language|assistants?|chat\s?bots?|bots?)\W+(?:models?\W+|systems?\W+)?(?:reading|"
    r"processing|summari[sz]ing|that\W+reads?|who\W+reads?)\W+th(?:is|ese)\b",
    r"\balways\W+(?:mention|say|use|include|answer|reply|respond|add|print)\W+(?:\w+\W+){0,3}?(?:word|"
    r"phrase|code\s?word|string|token|sentence|[\"'“«])",
    r"\b(?:whatever|no\W+matter\W+what)\W+(?:\w+\W+){0,3}?(?:asks?|asked|questions?|says?)\W+"
    rf"(?:\w+\W+){{0,2}}?{_SAY}\b",
    rf"\bstop\W+(?:reading|here|now)\W+(?:and\W+)?{_SAY}\b",
    r"\b(?:reveal|repeat|print|show|leak|output|disclose|expose|display)\W+(?:me\W+)?(?:your|the)\W+"
    r"(?:\w+\W+){0,2}?(?:system\W+prompt|instructions|initial\W+prompt|hidden\W+prompt|prompt)\b",
    r"\bspell\W?check\W+the\W+(?:previous|above)\b",
    r"\b(?:new|updated|important|urgent|real|actual|system)\W+(?:instructions?|prompt|directive|"
    r"override)(?:\W+for\W+(?:you|the\W+\w+))?\s*:",
    r"\b(?:developer|debug|admin|god|dan|jailbreak|sudo)\W+mode\W+(?:is\W+)?(?:enabled|on|activated)\b",
    r"\b(?:tell|inform|convince|ask|instruct)\W+the\W+user\W+(?:that|to|about)\b.{0,80}"
    r"\b(?:password|credentials|click|visit|call|pay|send|hijack|hacked)",
    r"\bstop\W+everything\b",
    r"\b(?:i\W+have\W+been|you\W+have\W+been|been\W+so\W+thoroughly)\W+(?:hijacked|pwned|hacked)\b",
)

GERMAN = (
    r"\b(?:ignorier\w*|missacht\w*|vergiss|vergessen\W+sie|verwirf)\b(?:\W+\w+){0,6}?\W+"
    r"(?:anweisung\w*|instruktion\w*|befehle?n?|regeln|vorgaben|prompts?|aufforderung\w*)\b",
    r"\b(?:antworte\w*|sag\w*|schreib\w*|gib|geben\W+sie|druck\w*)\W+(?:\w+\W+){0,2}?(?:nur|einfach|"
    r"ausschlie(?:ß|ss)lich|stattdessen|genau)\b(?:\W+\w+){0,3}?(?:\W+(?:wort|satz|text|mit)\b|\W*[\"„“'«:])",
    r"\b(?:beende|beginne|schlie(?:ß|ss)e)\w*\W+(?:deine|ihre|jede|die)\W+(?:antwort|ausgabe)\w*\b",
    r"\b(?:deine|ihre)\W+antwort\W+(?:muss|soll)\b|\bdu\W+bist\W+(?:jetzt|nun|ab\W+sofort)\b",
    r"\b(?:achtung|hinweis)\W+(?:an\W+)?(?:die\W+|den\W+)?(?:ki|assistent\w*|sprachmodell\w*)\b",
)
ROMANCE = (
    # es, pt, it, fr, ca, ro
    r"\b(?:ignor(?:a|e|en|ad|ar|ate|are|ez|er|ati|i)|olvid(?:a|e|ar)|esque(?:ce|ca|cer|ça)|dimentica\w*|"
    r"oubli(?:e|ez|er)|desestim\w+|descart\w+|desconsider\w+)\b(?:\W+\w+){0,6}?\W+(?:instrucci\w+|instruç\w+|"
    r"instru[cç][oõ]es|istruzion\w+|instruct\w+|indicacion\w+|indicazion\w+|indications|consignes|"
    r"ordenes|órdenes|ordens|ordini|ordres|comandos|comandi|reglas|regras|regole|règles|prompts?)\b",
    r"\b(?:responda?|conteste|contesta|diga|di|escriba|escribe|imprima|imprime|rispondi|scrivi|stampa|"
    r"répond(?:s|ez)|repond(?:s|ez)|écri(?:s|vez)|dis|dites|responde|escreva|diz)\W+(?:\w+\W+){0,2}?"
    r"(?:solo|sólo|solamente|únicamente|simplemente|apenas|somente|soltanto|solamente|semplicemente|"
    r"seulement|uniquement|simplement)\b",
    r"\b(?:termin[ae]\w*|finaliz\w+|acab[ae]\w*|empiez\w+|comienz\w+|comec\w+|começ\w+|inizi\w+|"
    r"commenc\w+|conclu\w+)\W+(?:\w+\W+)?(?:tu|su|sua|tua|la\W+tua|votre|ta|la)\W+(?:respuesta|resposta|"
    r"risposta|réponse|reponse)\b",
    r"\b(?:tu|su|votre|ta|a\W+sua|la\W+tua)\W+(?:respuesta|resposta|risposta|réponse)\W+(?:debe|deve|doit)\b",
    r"\b(?:ahora\W+eres|a\W+partir\W+de\W+ahora\W+(?:eres|responde)|agora\W+você\W+é|ora\W+sei\W+un|"
    r"tu\W+es\W+(?:désormais|maintenant)|vous\W+êtes\W+(?:désormais|maintenant))\b",
)
SLAVIC = (
    r"\b(?:игнорир\w+|проигнорир\w+|забудь\w*|не\W+обращай\w*|отбрось\w*|ігнор\w+)\b(?:\W+\w+){0,6}?\W+"
    r"(?:инструкц\w+|указани\w+|команд\w*|правил\w*|подсказ\w+|промпт\w*|інструкц\w+)\b",
    r"\b(?:просто|только|лишь|вместо\W+этого)\W+(?:скажи\w*|напиши\w*|выведи\w*|напечата\w+|"
    r"ответь\w*|отвечай\w*|повтори\w*)\b",
    r"\b(?:ответь\w*|отвечай\w*|скажи\w*|напиши\w*|выведи\w*)\W+(?:только|лишь|словом|одним|фразу)\b",
    r"\b(?:заверши|закончи|начни)\w*\W+(?:свой|ваш|каждый)?\W*ответ\w*\b|\bтвой\W+ответ\W+должен\b",
    r"\bты\W+теперь\b|\bтеперь\W+ты\b|\bтеперь\W+вы\W+—",
    r"\b(?:ignoruj|zignoruj|pomiń|zapomnij|ignorujte)\b(?:\W+\w+){0,6}?\W+(?:instrukcj\w+|poleceń|poleceni\w+"
    r"|instrukce|pokyny)\b",
)
CHINESE_JAPANESE_KOREAN = (
    r"(?:忽略|无视|無視|忘记|忘記|不要理会|不要遵循).{0,16}?(?:指令|指示|说明|說明|提示|规则|規則|命令|内容)",
    r"(?:只|仅|僅|直接)(?:需|要|能|可)?(?:输出|輸出|回答|回复|回覆|说|說|打印|列印|写|寫)",
    r"(?:在)?(?:你|您)的(?:回答|回复|答案|回覆)(?:中|里|裡|末尾|开头|必须|应该|要|最后)",
    r"(?:你现在是|你現在是|(?:从现在|從現在|从此刻)(?:起|开始|開始)[，,]?你(?!们|們))",
    r"(?:これまで|以前|上記|前|すべて|全て).{0,10}?(?:指示|命令|プロンプト|ルール).{0,4}?(?:無視|忘れ)",
    r"(?:だけ|のみ)を?(?:と)?(?:出力|回答|答え|返|言)|(?:あなたの)?回答(?:の最後|の冒頭|には必ず)",
    r"あなたは(?:今|これ)から|(?:이전|위의|모든|앞의).{0,10}?(?:지시|명령|지침|프롬프트).{0,6}?(?:무시|잊)",
    r"(?:라고만|만)\s?(?:출력|대답|답|말)(?:하|해)",
)
ARABIC_INDIC = (
    r"(?:تجاهل|انس|أهمل|اهمل|لا\W+تتبع)\w*(?:\W+\w+){0,5}?\W+\w*(?:تعليمات|التعليمات|أوامر|الأوامر|"
    r"اوامر|الاوامر|قواعد|القواعد|توجيهات|التوجيهات)",
    r"(?:فقط|بدلا\W+من\W+ذلك|ببساطة)\W+(?:اطبع|قل|اكتب|أجب|اجب|رد)\b|\b(?:اطبع|قل|اكتب|أجب|اجب)\W+"
    r"(?:\w+\W+)?فقط|(?:أنت|انت)\W+(?:الآن|الان)\b|(?:أنه|ابدأ|اختم)\W+(?:إجابتك|اجابتك|ردك)",
    r"(?:निर्देश|आदेश|अनुदेश|नियम|प्रॉम्प्ट)\S*(?:\s+\S+){0,4}?\s+(?:अनदेखा|अनदेखी|नज़रअंदाज़|नजरअंदाज|उपेक्षा|भूल)",
    r"(?:केवल|सिर्फ|सिर्फ़|बस)\s+(?:\S+\s+){0,5}?(?:लिखें|लिखो|कहें|कहो|बोलें|बोलो|प्रिंट|छापें|उत्तर\s+दें|जवाब\s+दें)",
    r"(?:अपने|आपके|आपका)\s+(?:उत्तर|जवाब)\s+(?:में|के\s+अंत|को)|(?:अब|अब\s+से)\s+(?:आप|तुम)\s+एक",
    r"(?:önceki|yukarıdaki|tüm)\W+(?:\w+\W+){0,3}?(?:talimat\w*|komut\w*)\W+(?:\w+\W+)?(?:yok\W+say|unut|görmezden)",
)
ROLES = (
    r"<\|?/?(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id|end_header_id)"
    r"\|?>|\[/?inst\]|<</?sys>>|</?(?:system|assistant|instructions?)>|<(?:start|end)_of_turn>",
    r"^\W*#{2,}\s*(?:instructions?|system|new\W+task|response)\s*:",
    r"^\W*(?:assistant|ai|llm|language\W+model|chatbot)\s*[,:]",
    r"^\W*(?:system|assistant|developer)(?:\W+(?:message|prompt|note))?\s*:\s*\S",
)

PATTERNS = (
    *ENGLISH,
    *GERMAN,
    *ROMANCE,
    *SLAVIC,
    *CHINESE_JAPANESE_KOREAN,
    *ARABIC_INDIC,
    *ROLES,
)
"""All patterns, for `re.MULTILINE`."""
