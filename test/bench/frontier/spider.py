"""Beside us: a plain spider with Scrapy's defaults. Follows links within the host, keeps only HTML.

python3 -m scrapy runspider spider.py -a start=URL -s ROBOTSTXT_OBEY=True -s DOWNLOAD_DELAY=SECONDS
"""
import time
from urllib.parse import urlsplit

import scrapy
from scrapy.http import HtmlResponse
from scrapy.linkextractors import LinkExtractor


class Pages(scrapy.Spider):
    name = "pages"

    def __init__(self, start, **kwargs):
        super().__init__(**kwargs)
        parts = urlsplit(start)
        self.start_urls = [start]
        self.allowed_domains = [parts.hostname]
        # The extractor compares with the port, the filter of other sites without it.
        self.links = LinkExtractor(allow_domains=[parts.netloc])

    def parse(self, response):
        if not isinstance(response, HtmlResponse):
            return
        yield {"url": response.url, "at": time.time()}
        for link in self.links.extract_links(response):
            yield response.follow(link, callback=self.parse)
