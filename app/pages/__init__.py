"""Web pages: what people see and do in a browser.

How a page is built: a route of `<area>/` admits the viewer (`web/session.py`), reads what the page needs in a few
statements (`<area>/read.py`, through the stores of the slices), computes words and geometry (`words.py`, `plots/`), and
renders `templates/<page>.html` (`web/frame.py`). A form is read after the viewer and the origin of the request were
checked (`PageRequest.form`), parsed by the same model as the body of the REST route, and passed to the same action;
then the browser is sent to the page that shows the result.

Pages need no script: `static/aftermath.js` only makes them more comfortable.
"""

from fastapi import FastAPI

from app.pages import catalog, incidents, numbers, overview, response, reviews, search, sources, status
from app.pages.access import sign_in, tokens
from app.pages.web import assets
from app.pages.web.frame import missing_page, page_of_form

ROUTERS = (
    assets.router,
    sign_in.router,
    tokens.router,
    overview.router,
    incidents.router,
    reviews.router,
    numbers.router,
    sources.router,
    catalog.router,
    response.router,
    search.router,
    status.router,
)


def install_pages(api: FastAPI) -> None:
    """Adds the pages to the application."""
    for router in ROUTERS:
        api.include_router(router)
    api.add_exception_handler(404, missing_page)
    api.add_exception_handler(405, page_of_form)
