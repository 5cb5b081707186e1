"""The fixed words a person is shown beside a model's reply; never part of the reply, never scored."""

from dataclasses import dataclass

from medmind.safety.red_flags import LANGUAGES, RedFlag, find_red_flag
from medmind.safety.rules import Kind

GAP = "\n\n"
"""Between a reply and what is put around it."""
NOTE = "This is educational information only. Always consult healthcare professionals for medical decisions."
EMERGENCY = {
    "en": "**This may be an emergency.** If it is happening to you or to someone near you, call your local emergency "
    "number now (112 in Europe, 911 in North America, 999 in the United Kingdom). Do not wait for the answer below: "
    "it is written by a language model and is no help in an emergency.",
    "es": "**Puede ser una emergencia.** Si le está pasando a usted o a alguien a su lado, llame ahora al número de "
    "emergencias (112 en Europa, 911 en gran parte de América). No espere la respuesta de abajo: la escribe un modelo "
    "de lenguaje y no sirve de ayuda en una emergencia.",
    "fr": "**C'est peut-être une urgence.** Si cela vous arrive, ou arrive à quelqu'un près de vous, appelez tout de "
    "suite les secours (112 en Europe, 15 en France, 911 au Canada). N'attendez pas la réponse ci-dessous : elle est "
    "écrite par un modèle de langage et n'est d'aucun secours dans une urgence.",
    "it": "**Potrebbe essere un'emergenza.** Se sta succedendo a lei o a qualcuno vicino a lei, chiami subito i "
    "soccorsi (112 in Europa, 118 in Italia). Non aspetti la risposta qui sotto: è scritta da un modello linguistico "
    "e non è di aiuto in un'emergenza.",
    "de": "**Das kann ein Notfall sein.** Wenn es Ihnen oder jemandem bei Ihnen gerade geschieht, rufen Sie jetzt den "
    "Notruf (112 in Europa, 144 in der Schweiz und in Österreich). Warten Sie nicht auf die Antwort unten: sie "
    "ist von einem Sprachmodell geschrieben und hilft in einem Notfall nicht.",
}
MORE = {
    (
        Kind.SUICIDE,
        "en",
    ): "You do not have to be alone with this: call or text 988 (United States, Canada), call 116 123 "
    "(United Kingdom, Ireland and much of Europe), or talk to someone you trust now.",
    (Kind.SUICIDE, "es"): "No tiene que pasar por esto a solas: llame al 024 (España), al 988 (Estados Unidos) o hable "
    "ahora con alguien de confianza.",
    (Kind.SUICIDE, "fr"): "Ne restez pas seul : appelez le 3114 (France), le 988 (Canada) ou parlez maintenant à une "
    "personne de confiance.",
    (Kind.SUICIDE, "it"): "Non resti da solo: chiami il 02 2327 2327 (Telefono Amico Italia) o parli adesso con una "
    "persona di fiducia.",
    (
        Kind.SUICIDE,
        "de",
    ): "Bleiben Sie damit nicht allein: 0800 111 0 111 (Deutschland), 142 (Österreich), "
    "143 (Schweiz), oder sprechen Sie jetzt mit jemandem, dem Sie vertrauen.",
    (Kind.POISON, "en"): "Poison control: 1-800-222-1222 in the United States. Keep the packaging; do not make anyone "
    "vomit unless you are told to.",
}
"""Help of its own kind, after the general words."""


def emergency_text(flag: RedFlag, own: str = "") -> str:
    """What stands before the reply; `own` is an operator's text in place of ours."""
    return own or "\n\n".join(filter(None, (EMERGENCY[flag.language], MORE.get((flag.kind, flag.language), ""))))


EVERY = sorted({emergency_text(RedFlag(kind, one)) for kind in Kind for one in LANGUAGES}, key=len, reverse=True)
"""The longest first: some begin as others do."""


@dataclass(frozen=True)
class Additions:
    """What is put around the replies of one model."""

    red_flags: bool = True
    emergency_text: str = ""
    """An operator's own, in place of ours."""
    note: bool = False
    """Whether a reply without the educational note gets it."""

    def before(self, question: str) -> tuple[str, str]:
        """What stands before the reply to a user's message, and the kind of emergency; or nothing twice."""
        flag = find_red_flag(question) if self.red_flags else None
        return (emergency_text(flag, self.emergency_text), flag.kind) if flag else ("", "")

    def after(self, reply: str) -> str:
        return missing_note(reply) if self.note else ""

    def taken_off(self, reply: str) -> str:
        """A reply as the model said it, of one that comes back with what was put around it."""
        for text in filter(None, (self.emergency_text, *EVERY)):
            if reply.strip() == text.strip() or reply.startswith(f"{text}{GAP}"):
                reply = reply.strip().removeprefix(text.strip()).strip()
                break
        own = reply.removesuffix(NOTE).removesuffix(GAP)
        return own if reply in (NOTE, f"{own}{GAP}{NOTE}") and missing_note(own) else reply


def missing_note(reply: str, note: str = NOTE) -> str:
    """The note, unless the reply already says that it is educational."""
    return "" if "educational" in reply.lower() else note
