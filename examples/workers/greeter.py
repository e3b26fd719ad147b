"""A worker in Python: a class, or functions. `hauki clone examples/workers/greeter.py`"""
import time


class Worker:
    def __init__(self, hauki):
        self.hauki = hauki
        self.greeted = 0

    def greet(self, name):
        self.greeted += 1
        return f"Hello, {name.title()}!"

    def count_down(self, start):
        """A generator is a stream: it goes on as its caller reads."""
        for number in range(start, 0, -1):
            time.sleep(0.01)  # Others are served meanwhile.
            yield number

    async def weather(self, url):
        """In a coroutine what waits is awaited. What it may fetch, its caller grants."""
        return (await self.hauki.fetch(url)).text

    def on_end(self, reason):
        print(f"ending after {self.greeted} greetings: {reason}")
