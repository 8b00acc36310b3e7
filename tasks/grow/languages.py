"""ISO 639-1 codes and the languages' English names."""

import re

_NAMES = """\
aa Afar|ab Abkhazian|af Afrikaans|ak Akan|am Amharic|an Aragonese|ar Arabic|as Assamese|av Avaric|
ay Aymara|az Azerbaijani|ba Bashkir|be Belarusian|bg Bulgarian|bh Bihari|bi Bislama|bm Bambara|
bn Bengali|bo Tibetan|br Breton|bs Bosnian|ca Catalan|ce Chechen|ch Chamorro|co Corsican|cr Cree|
cs Czech|cu Church Slavonic|cv Chuvash|cy Welsh|da Danish|de German|dv Divehi|dz Dzongkha|ee Ewe|
el Greek|en English|eo Esperanto|es Spanish|et Estonian|eu Basque|fa Persian|ff Fulah|fi Finnish|
fj Fijian|fo Faroese|fr French|fy Western Frisian|ga Irish|gd Scottish Gaelic|gl Galician|
gn Guarani|gu Gujarati|gv Manx|ha Hausa|he Hebrew|hi Hindi|hr Croatian|ht Haitian Creole|
hu Hungarian|hy Armenian|ia Interlingua|id Indonesian|ie Interlingue|ig Igbo|ii Sichuan Yi|
ik Inupiaq|io Ido|is Icelandic|it Italian|iu Inuktitut|ja Japanese|jv Javanese|ka Georgian|
kg Kongo|ki Kikuyu|kk Kazakh|kl Kalaallisut|km Khmer|kn Kannada|ko Korean|ks Kashmiri|ku Kurdish|
kv Komi|kw Cornish|ky Kyrgyz|la Latin|lb Luxembourgish|lg Ganda|li Limburgish|ln Lingala|lo Lao|
lt Lithuanian|lv Latvian|mg Malagasy|mi Maori|mk Macedonian|ml Malayalam|mn Mongolian|mr Marathi|
ms Malay|mt Maltese|my Burmese|na Nauru|nb Norwegian Bokmål|ne Nepali|nl Dutch|
nn Norwegian Nynorsk|no Norwegian|nv Navajo|ny Chichewa|oc Occitan|om Oromo|or Odia|os Ossetian|
pa Punjabi|pi Pali|pl Polish|ps Pashto|pt Portuguese|qu Quechua|rm Romansh|rn Rundi|ro Romanian|
ru Russian|rw Kinyarwanda|sa Sanskrit|sc Sardinian|sd Sindhi|se Northern Sami|sg Sango|si Sinhala|
sk Slovak|sl Slovenian|sm Samoan|sn Shona|so Somali|sq Albanian|sr Serbian|ss Swati|st Sotho|
su Sundanese|sv Swedish|sw Swahili|ta Tamil|te Telugu|tg Tajik|th Thai|ti Tigrinya|tk Turkmen|
tl Tagalog|tn Tswana|to Tongan|tr Turkish|ts Tsonga|tt Tatar|tw Twi|ty Tahitian|ug Uyghur|
uk Ukrainian|ur Urdu|uz Uzbek|ve Venda|vi Vietnamese|vo Volapük|wa Walloon|wo Wolof|xh Xhosa|
yi Yiddish|yo Yoruba|za Zhuang|zh Chinese|zu Zulu|ae Avestan|ho Hiri Motu|hz Herero|kj Kuanyama|
kr Kanuri|lu Luba-Katanga|mh Marshallese|nd North Ndebele|ng Ndonga|nr South Ndebele"""
_ENTRIES = (entry.partition(" ") for entry in _NAMES.replace("\n", "").split("|"))
LANGUAGES = {code: name for code, _, name in _ENTRIES}


def language_name(code: str) -> str:
    """Returns the language of a code, with or without a region; "" if it is no code."""
    return LANGUAGES.get(code.lower().replace("_", "-").partition("-")[0], "")


def language_of_column(name: str) -> str:
    """Returns the language of a column named by its code ("en", "pt_BR", "zh-cn"), or "".

    "az_tr" names two languages, not a region; no sensible task can be made from it.
    """
    is_code = re.fullmatch(r"[a-z]{2}([-_][A-Z]{2}|-[a-z]{2})?", name)
    return language_name(name) if is_code else ""
