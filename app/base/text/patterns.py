"""What a text that does not match its pattern should look like, for the API and for pages."""

from collections.abc import Mapping

# By the pattern of a text.
FORMS: Mapping[str, str] = {
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": "must begin with a letter or a digit, and may have up to 100 letters, digits, "
    "dots, dashes and underscores",
    "^([01][0-9]|2[0-3]):[0-5][0-9]$": "must be a time of day such as `09:30`",
    "^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$": "must be a time of day such as `17:30`, or `24:00`",
    "^[A-Z]{3}$": "must be the code of a currency, such as `EUR`",
    "^[^@\\s]+@[^@\\s]+$": "must be an email address",
    "^[A-Za-z0-9-]{1,100}$": "must be the name of a header",
    "^[a-z][a-z0-9_-]{0,49}$": "must begin with a lower-case letter, and may have up to 50 lower-case letters, digits, "
    "dashes and underscores",
    "^0\\.[0-9]{1,9}$": "must be a string such as `0.999`: above 0 and below 1, with up to 9 decimal places",
    "^https?://[^/?#]+(/[A-Za-z0-9._~%/-]*)?$": "must be a URL such as `https://example.com:9093/path`, without query "
    "and fragment",
    r"^[^\x00]{1,1024}$": "must have 1 to 1,024 characters",
    "^[ -9;-~]+$": "must be printable ASCII without `:`",
    "^[a-z][a-z_]{1,30}$": "must have 2 to 31 lower-case letters and underscores, and begin with a letter",
}
