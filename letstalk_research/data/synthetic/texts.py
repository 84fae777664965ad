"""What drawn faces say, and in which voice: random sentences of eight languages, split into training and held-out.

Words, sentence patterns and voice variants of the held-out split never occur in training, so that tests measure
lips on new sentences in new voices. A few languages are spoken in several accents. Any sentence will do as long as
its sounds are varied: grammar is only approximate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.random import Generator

from letstalk_core.errors import ConfigError

from .speech import Utterance, join, silence, synthesise

SPLITS = ("train", "held_out")
HELD_OUT_EVERY = 6  # every sixth word of each list is held out

# N things and people, V what they do, A how or where, T when, I what one calls out; entries separated by commas.
LANGUAGES: dict[str, dict[str, str]] = {
    "en": {
        "N": "the mother,my brother,a famous poet,the baby,our neighbour,the yellow moon,two puppies,"
             "a wooden boat,the old bookshop,fresh bread,the purple flower,every farmer,a quiet river,"
             "his favourite movie,warm soup,the village school,a brave woman,blue butterflies,"
             "the five musicians,good coffee,the weather,your voice",
        "V": "follows,moves,wants,remembers,opens,believes in,pushes,watches,pays for,finds,jumps over,"
             "whispers about,thinks of,brings,washes,loves,would prefer,measures",
        "A": "very slowly,under the bridge,by the window,with both hands,above the clouds,for a while,"
             "before breakfast,without a problem,around the corner,in the summer,all by itself,far away",
        "T": "in the morning,tomorrow,once upon a time,on Monday,today,at half past four,maybe,every evening,"
             "from now on,after the show",
        "I": "hello,welcome home,oh my,thank you,well,please wait,wow,good evening,you know,of course",
    },
    "de": {
        "N": "die Mutter,mein Bruder,ein schöner Baum,das Pferd,unser Nachbar,der blaue Mond,zwei Vögel,"
             "die Bäume,das Frühstück,frisches Brot,eine Überraschung,die Musik,der große Fluss,"
             "ihr Lieblingsbuch,warme Suppe,das alte Haus,die Königin,fünf Apfelbäume,der Müller,guter Kaffee",
        "V": "findet,bewegt,möchte,öffnet,glaubt an,schiebt,beobachtet,bezahlt,überholt,flüstert über,wäscht,"
             "liebt,braucht,begrüßt",
        "A": "ganz langsam,unter der Brücke,am Fenster,mit beiden Händen,über den Wolken,ohne Mühe,"
             "um die Ecke,im Sommer,hoch oben,von selbst",
        "T": "am Morgen,heute,vielleicht,jeden Abend,um halb vier,bald,übermorgen,nach dem Film",
        "I": "guten Tag,hallo,ach so,danke schön,bitte,na gut,wunderbar,auf Wiedersehen",
    },
    "es": {
        "N": "la madre,mi hermano,un poeta famoso,el bebé,nuestro vecino,la luna amarilla,dos perros,"
             "un barco viejo,el mercado,pan fresco,una flor púrpura,la música,el río grande,"
             "su película favorita,sopa caliente,la escuela,una mujer valiente,las mariposas,el pueblo,"
             "buen café",
        "V": "busca,mueve,quiere,abre,empuja,observa,paga,encuentra,prefiere,lava,ama,olvida,compra,saluda",
        "A": "muy despacio,bajo el puente,por la ventana,con ambas manos,sobre las nubes,un rato,"
             "sin problemas,en verano,muy lejos,a veces",
        "T": "por la mañana,hoy,mañana,tal vez,cada tarde,el lunes,pronto,después del baile",
        "I": "hola,buenos días,por favor,muchas gracias,bueno,claro que sí,vaya,bienvenido",
    },
    "fr": {
        "N": "la mère,mon frère,un poète connu,le bébé,notre voisin,la lune jaune,deux oiseaux,"
             "un bateau bleu,le vieux marché,du pain frais,une fleur rouge,la musique,le fleuve,"
             "son film préféré,une soupe chaude,la maison,une femme heureuse,les papillons,le boulanger,"
             "un bon café",
        "V": "cherche,pousse,voudrait,ouvre,trouve,regarde,oublie,préfère,lave,aime,mesure,suit,promet,salue",
        "A": "doucement,sous le pont,par la fenêtre,avec joie,au-dessus des nuages,sans souci,"
             "au coin de la rue,en été,tout seul,un peu plus loin",
        "T": "le matin,aujourd'hui,peut-être,chaque soir,lundi,bientôt,à huit heures,après le spectacle",
        "I": "bonjour,bienvenue,s'il vous plaît,merci beaucoup,oh là là,bon,d'accord,au revoir",
    },
    "it": {
        "N": "la mamma,mio fratello,un poeta famoso,il bambino,il nostro vicino,la luna gialla,due uccelli,"
             "una barca,il mercato,pane fresco,un fiore viola,la musica,il fiume,il suo film preferito,"
             "una zuppa calda,la scuola",
        "V": "cerca,muove,vuole,apre,spinge,osserva,paga,trova,preferisce,lava,ama,compra",
        "A": "molto piano,sotto il ponte,alla finestra,con le mani,sopra le nuvole,senza problemi,d'estate,"
             "lontano",
        "T": "di mattina,oggi,domani,forse,ogni sera,lunedì,presto,dopo lo spettacolo",
        "I": "ciao,buongiorno,per favore,grazie mille,bene,certo,benvenuti,arrivederci",
    },
    "pt": {
        "N": "a mãe,meu irmão,um poeta famoso,o bebê,nosso vizinho,a lua amarela,dois pássaros,um barco azul,"
             "o mercado,pão fresco,uma flor roxa,a música,o rio grande,seu filme favorito,sopa quente,"
             "a escola",
        "V": "procura,move,quer,abre,empurra,observa,paga,encontra,prefere,lava,ama,compra",
        "A": "devagar,debaixo da ponte,pela janela,com as mãos,sobre as nuvens,sem problemas,no verão,"
             "bem longe",
        "T": "de manhã,hoje,amanhã,talvez,toda noite,em breve,depois da festa,na segunda",
        "I": "olá,bom dia,por favor,muito obrigado,bem,claro,bem-vindos,até logo",
    },
    "nl": {
        "N": "de moeder,mijn broer,een mooie boom,het paard,onze buurman,de gele maan,twee vogels,"
             "een oude boot,de markt,vers brood,een paarse bloem,de muziek,de rivier,het huis,warme soep,"
             "goede koffie",
        "V": "zoekt,beweegt,wil,opent,duwt,bekijkt,betaalt,vindt,wast,koopt,vergeet,begroet",
        "A": "heel langzaam,onder de brug,bij het raam,met beide handen,boven de wolken,zonder moeite,"
             "om de hoek,ver weg",
        "T": "vanmorgen,vandaag,morgen,misschien,elke avond,binnenkort,overmorgen,na de film",
        "I": "hallo,goedemorgen,alsjeblieft,dank je wel,nou ja,natuurlijk,welkom thuis,tot ziens",
    },
    "pl": {
        "N": "mama,mój brat,sławny poeta,małe dziecko,nasz sąsiad,żółty księżyc,dwa ptaki,stara łódka,targ,"
             "świeży chleb,fioletowy kwiat,muzyka,wielka rzeka,ulubiony film,ciepła zupa,dobra kawa",
        "V": "szuka,porusza,woli,otwiera,popycha,ogląda,kupuje,znajduje,myje,kocha,pamięta,wita",
        "A": "bardzo powoli,pod mostem,przy oknie,obiema rękami,nad chmurami,bez problemu,za rogiem,daleko",
        "T": "rano,dzisiaj,jutro,może,każdego wieczoru,wkrótce,pojutrze,po filmie",
        "I": "cześć,dzień dobry,proszę,dziękuję bardzo,no dobrze,oczywiście,witamy,do widzenia",
    },
}  # fmt: skip
ACCENTS = {
    "en": ("en-us", "en-us", "en", "en", "en-gb-scotland", "en-gb-x-rp", "en-029"),
    "es": ("es", "es-419"),
    "pt": ("pt", "pt-br"),
}
LANGUAGE_WEIGHTS = {"en": 0.36, "de": 0.12, "es": 0.12, "fr": 0.12, "it": 0.08, "pt": 0.08, "nl": 0.06, "pl": 0.06}
PATTERNS = {
    "train": ("N V N.", "T, N V N.", "N V N A.", "I, N V N.", "N V N, and N V N.", "T N V A.", "I! N V N A.",
              "N, N, N.", "N V A, N V A.", "I, I. N V N.", "V N A?", "A, N V N."),
    "held_out": ("I. T, N V N A.", "N and N V A.", "N V N? I, A.", "N A, T V N."),
}  # fmt: skip
AND = {"en": "and", "de": "und", "es": "y", "fr": "et", "it": "e", "pt": "e", "nl": "en", "pl": "i"}
TRAIN_VARIANTS = (
    *("", "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5"),
    *("klatt", "klatt2", "klatt3", "Andrea", "Denis", "Gene", "Henrique", "iven", "Jacky", "Lee", "linda"),
    *("Michael", "Mike", "pablo", "steph", "zac", "grandma", "anika", "shelby", "rob", "Marco"),
)  # espeak-ng speaks with the plain voice when it has no variant of a name
HELD_OUT_VARIANTS = ("klatt4", "m8", "Annie", "Andy", "Alex", "belinda", "david", "Hugo")


class Speaker(Protocol):
    """Draws what is said, and by whom, as `random_utterance` does."""

    def __call__(self, rng: Generator, split: str, min_seconds: float) -> Utterance: ...


@dataclass(frozen=True)
class _Voice:
    name: str
    rate: float
    pitch: float
    pitch_range: float


def entries(language: str, kind: str, split: str) -> list[str]:
    """Words of one kind (N, V, A, T or I) that a split may use. Raises: ConfigError."""
    _check(split)
    words = LANGUAGES[language][kind].split(",")
    held_out = split == "held_out"
    return [w for i, w in enumerate(words) if (i % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) == held_out]


def random_sentence(rng: Generator, language: str, split: str) -> str:
    """A sentence such as "In the morning, the baby opens two puppies." Raises: ConfigError."""
    _check(split)
    pattern = PATTERNS[split][rng.integers(len(PATTERNS[split]))]
    words: list[str] = []
    for token in pattern.split(" "):
        kind, mark = token.rstrip(".,?!"), token[len(token.rstrip(".,?!")) :]
        choices = entries(language, kind, split) if len(kind) == 1 else [AND[language]]
        words.append(choices[rng.integers(len(choices))] + mark)
    sentence = " ".join(words)
    return sentence[0].upper() + sentence[1:]


def random_utterance(rng: Generator, split: str, min_seconds: float) -> Utterance:
    """Sentences in one random voice that last at least `min_seconds`, with natural and added pauses.

    A third of the utterances begin or end with up to 0.8 s of silence; sentences may be set apart by up to 0.6 s.
    Raises: DependencyError without espeak-ng; ConfigError for an unknown split.
    """
    _check(split)
    language = str(rng.choice(list(LANGUAGE_WEIGHTS), p=list(LANGUAGE_WEIGHTS.values())))
    voice = _random_voice(rng, language, split)
    gain = float(np.exp(rng.uniform(np.log(0.3), np.log(1.6))))
    lead = rng.uniform(0.0, 0.8) if rng.random() < 0.35 else 0.0
    trail = rng.uniform(0.0, 0.8) if rng.random() < 0.35 else 0.0
    parts = [silence(lead)]
    spoken = False
    while not spoken or sum(p.seconds for p in parts) + trail < min_seconds:
        if spoken and rng.random() < 0.4:
            parts.append(silence(rng.uniform(0.1, 0.6)))
        text = random_sentence(rng, language, split)
        speech = synthesise(text, voice.name, rate=voice.rate, pitch=voice.pitch, pitch_range=voice.pitch_range)
        parts.append(speech.scaled(gain))
        spoken = True
    return join([*parts, silence(trail)])


def _random_voice(rng: Generator, language: str, split: str) -> _Voice:
    accents = ACCENTS.get(language, (language,))
    variants = TRAIN_VARIANTS if split == "train" else HELD_OUT_VARIANTS
    accent, variant = accents[rng.integers(len(accents))], variants[rng.integers(len(variants))]
    name = f"{accent}+{variant}" if variant else accent
    return _Voice(name, rng.uniform(120, 195), rng.uniform(15, 85), rng.uniform(30, 80))


def _check(split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"split={split!r} must be one of {SPLITS}")
