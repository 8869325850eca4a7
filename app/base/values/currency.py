"""The currencies of ISO 4217, as the type of every currency that the service takes."""

from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

# As of 2026. Without funds, metals, units of account, `XTS` (tests) and `XXX` (no currency): no rate is in those.
_IN_USE = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP CNY
    COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR
    ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK
    MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF
    SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU
    UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
"""
_REPLACED = frozenset({"ANG", "BGN", "CUC", "HRK", "SLL", "ZWL"})  # since 2021; rates of the past may be in them
CURRENCIES = frozenset(_IN_USE.split()) | _REPLACED


def _known(code: str) -> str:
    if code not in CURRENCIES:
        message = "must be the code of a currency in ISO 4217, such as `EUR`"
        raise ValueError(message)
    return code


Currency = Annotated[
    str,
    StringConstraints(pattern="^[A-Z]{3}$"),
    AfterValidator(_known),
    Field(description="Code of a currency in ISO 4217", examples=["EUR"]),
]
