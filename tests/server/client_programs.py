"""Programs with other people's packages, each run by an environment of its own: `python FILE NAME URL`."""

import sys


def instructor(url: str) -> None:
    import instructor
    import openai
    from pydantic import BaseModel

    class City(BaseModel):
        city: str

    client = openai.OpenAI(base_url=url, api_key="none")
    for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.JSON):
        found = instructor.from_openai(client, mode=mode).chat.completions.create(
            model="bundled", response_model=City, max_retries=0,
            messages=[{"role": "user", "content": "Extract city as JSON: I live in Porto."}],
        )  # fmt: skip
        print(mode.name, found.model_dump())


def langchain(url: str) -> None:
    from langchain_openai import ChatOpenAI
    from pydantic import BaseModel

    class City(BaseModel):
        """A city."""

        city: str

    model = ChatOpenAI(base_url=url, api_key="none", model="bundled", temperature=0)
    for method in ("json_schema", "json_mode"):
        found = model.with_structured_output(City, method=method).invoke("Extract city as JSON: I live in Porto.")
        print(method, found.model_dump())


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
