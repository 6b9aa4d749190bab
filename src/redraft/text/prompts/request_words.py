"""The words that requests for fields are made of, in the languages that the bundled model is trained on.

They tell a request from the names that it lists, and from its text. None of them is a name by itself, but many may be
within one: "list price" is a name where it is not the first of a list.
"""

import re

FRAME = frozenset(
    # English
    "a an the me us you your my our i i'm i'd we it its this that these those them following given below above here "
    "please pls w/ kindly can could would will may need needs want wants wanted like have has had get gets give gives "
    "find finds return returns list lists extract extracts pull grab fetch read show tell say make makes made produce "
    "produces build create write writes output put turn convert parse fill help identify pick report provide send "
    "reply answer respond summarise summarize collect gather take look for whom is are was were does do did "
    "out up of from in into to with as by and or on at per only just exactly all any each every both through task "
    "instruction instructions json object objects array format form structure structured valid one single fields keys "
    "names named called property properties values attribute attributes columns items entries records rows lines using "
    "use containing contains having whose there about then so now also plus off let let's be should must shall "
    "information info details data piece pieces sentence paragraph "
    # German
    "bitte gib gebt mir uns extrahiere extrahieren hole als aus dem den der die das des im folgenden folgendem "
    "folgender felder feldern feld schlüsseln mit und jeden jede für eine einen ein json-objekt json-array liste "
    "zurück nenne suche finde finden ich brauche möchte wie lautet lauten ist sind objekt ausgabe ausgeben "
    # French
    "extrais extraire extrayez donne donnez moi le la les l du de un une texte en au avec champs champ suivant dans "
    "pour chaque je veux voudrais renvoie quel quelle quels quelles est sont et objet clés "
    # Spanish and Portuguese
    "extrae extraer dame devuelve el los las del texto como formato con campos siguiente siguientes y por favor quiero "
    "necesito cuál cuáles es son objeto claves extraia extrair dá-me devolva o os do da num para preciso qual quais "
    "são "
    # Italian
    "estrai dammi il lo gli dal dalla dai testo come campi seguente e ogni voglio restituisci quali è sono oggetto "
    # Dutch and Polish
    "haal geef uit het een tekst met velden graag wil voor elke wat zijn wyodrębnij podaj podać wypisz wyciągnij z ze "
    "tekstu jako w formacie pola oraz proszę dla każdego jaki jest".split()
)
"""The words that stand around a list."""
THINGS = frozenset(
    "text message mail email e-mail note document item entry record row line passage snippet letter log key field chat "
    "ticket post article review things points infos".split()
)
"""What a request calls its text, its list or a part of that. Each may be a name, too."""
CUES = FRAME - frozenset(
    "a an the this that these those my our your me us you i it its of in on at and or as is are do does by per all any "
    "for each every one single only up out off to from here there about so now list names den dem der die das "
    "des im als und ein eine einen le la les l du de un une et en el los las y e il lo gli dal een het o os da".split()
)
"""The words of the frame that a list begins behind."""
ASKING = frozenset(
    "extract get give me find return tell show pull out need want identify provide grab with list only just "
    "extrahiere nenne finde gib mir brauche extrais moi extrae dame estrai dammi geef haal wyodrębnij podaj".split()
)
"""Those that a single name may stand behind."""
DETERMINERS = frozenset("the this that these those my our a an following below above".split())
INTRODUCING = frozenset(
    "json with keys fields following object objects array form format of as for values columns attributes properties "
    "these only list records felder feldern schlüsseln champs campos campi velden pola".split()
)
"""Those that a list in round brackets stands behind."""
CLOSING = frozenset(
    "please pls thanks thx json as in from for me and the it a an to with of here below above format object array now "
    "by bitte danke als im merci en gracias como por favor grazie come alsjeblieft graag proszę jako".split()
)
"""Those that stand behind a list."""
QUESTION = re.compile(r"\b(?:what|which|who) (?:is|are|was|were) ", re.IGNORECASE)
ING = re.compile(r"(?:hold|hav|includ|contain|compris|cover|show|carry|us|list|giv)ing")

JSON = re.compile(r"\bjson[a-z]*\b", re.IGNORECASE)
ARRAY = re.compile(
    r"\barray|\ba list\b|\bjson, a list|\bjson[- ]?(?:list\w*|lines)\b|\blist of\b|\bobjects\b|\b(?:each|every\w*)\b|"
    r"\bper \w|\bone (?:\w+ )?(?:for|per) |\b(?:for|of|from) all\b|\ball (?:of )?(?:the|these|those) \w|"
    r"\b(?:für|pour|para|voor|dla|per) (?:jede\w*|chaque|cada|elke?|każd\w+|ogni)\b|"
    r"\b(?:liste?|lista|tableau|tablica|matriz) (?:de |di |van |von )?json\b",
    re.IGNORECASE,
)
"""What asks for several objects."""
LABEL = re.compile(
    r"\s*(?:the |here is the |here's the |my )?"
    r"(?:text|input|message|e-?mail|mail|note|document|content|data|source|passage|log|texte|texto|testo|tekst)"
    r"(?: is| here| below)?[ \t]*:\s+",
    re.IGNORECASE,
)
"""What a text is announced with."""
GOES_ON = re.compile(
    r"\b(?:json|null|keys?|fields?|schema|missing|absent|nothing else|no explanations?|no prose|"
    r"not (?:in|there|present|mentioned)|felder|fehlt|fehlen|leer|champs|manquant|campos|falta\w*|campi|chiavi|"
    r"mancant\w*|velden|ontbre\w*|pola|klucze|brak\w*)\b",
    re.IGNORECASE,
)
"""What a further sentence of a request has."""
ASIDE = re.compile(
    r"[(\[]\s*(?:[\w ]{0,20}\b)?json\b[^()\[\]]{0,30}[)\]]|"
    r",?\s+(?:and )?(?:nothing else|no other text|please|pls|thanks?|thx|thank you)\b(?=\s*(?:[.,!?]|$))",
    re.IGNORECASE | re.MULTILINE,
)
"""What a request may be said with or without."""
KEYS = re.compile(
    r"\b(?:keys?|fields?|attributes|properties|columns|felder\w*|schlüssel\w*|cl[ée]s|champs|claves|campos|chiavi|campi|"
    r"velden|klucze|pola)\b(?:\s*json)?\s*[:=\s]\s*(?P<behind>[^.?!\n()]+)|"
    r"\buse\s+(?P<before>[^.?!\n]+?)\s+as\s+(?:the\s+)?(?:json\s+)?keys\b",
    re.IGNORECASE,
)
"""What says which the names are, whatever else a request says."""
KEYS_ARE = re.compile(r"^(?:are|named|called|should be|must be|will be|sind|sont|son|sono|zijn|to)\s")
SURE_ENDS = re.compile(
    r"\s+(?:for (?:each|every|all|any)|of (?:each|every|all)|per|pour chaque|para cada|de (?:cada|chaque)|"
    r"für jede\w*|per ogni|voor elke?|dla każdego)\s.*$",
    re.IGNORECASE | re.DOTALL,
)
"""What a list ends before, commas or not."""
ENDS = re.compile(
    r"\s+(?:and (?:return|give|answer|output|write|put|format|reply|respond|send|show|make) |"
    r"from|out of|as (?:a |an |one )?(?:valid |plain |flat )?json|"
    r"in (?:a |an |the |this |that |these |valid |our |my |your )?"
    r"(?:json|text|message|mail|e-?mail|note|following|document|passage|form|format|log|sentence|table|list|"
    r"receipt|invoice)|"
    r"of (?:the following|this|that|these|every|each|all|everyone|everybody)|"
    r"for (?:this|these|the following|my|our|a|an)|"
    r"mentioned|stated|given|contained|does|do|is|are|can|could|that|which|using|below|above|here|"
    r"aus (?:dem|der|diesem|dieser|folgende\w)|als json|im json\w*|dans (?:le|la|ce|cet)|depuis|en json|au format|"
    r"de (?:este|esta|ce|cette)|del (?:texto|siguiente)|desde|dal|dalla|in formato|uit (?:de|het|deze|dit)|"
    r"z (?:tekstu|tej|tego)|jako)\b[^,]*$",
    re.IGNORECASE | re.DOTALL,
)
"""What a list ends before, where no comma follows."""
AGAIN = re.compile(
    r"\s*(?=[^\n:]*\b(?:again|same|next|another|also|this|that|here|now|noch|nächste\w*|suivant\w*|otr[oa]|prossim[oa]|"
    r"volgende|próxim[oa]|następn\w+)\b)[^\n:,.]{1,50}(?:,[^\n:,.]{1,30})?:\s+",
    re.IGNORECASE,
)
"""How a message begins that gives another text for what was asked before."""
AND = re.compile(r"\s(?:und|et|y|ed|e|en|oraz|i)\s")
ARTICLE = re.compile(
    r"(,|\band\b|&)\s+(?:what(?:'s| is| are| was)\s+)?"
    r"(?:the|its|their|his|her|an?|die|der|den|das|le|les|la|el|los|las|il|lo|gli|de|het|os|as)\s(?=\w)",
    re.IGNORECASE,
)
"""A separator of names, and the article behind it."""
